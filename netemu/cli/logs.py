"""`netemu logs`: what a container, or one of the lab's own processes, wrote."""

from __future__ import annotations

import sys

import msgspec

from netemu.cli.labs import pick
from netemu.cli.output import Format, say
from netemu.lab.logfiles import cri_text, log_file, read_lines


def logs(lab: str, target: str, namespace: str, container: str, *, follow: bool, tail: int, output: Format) -> None:
    """Print lines; with -o json an object per line, so that a followed log is JSON too."""
    path, in_cri_format = log_file(pick(lab), target, namespace, container)
    for line in read_lines(path, tail=tail, follow=follow):
        moment, stream, text = cri_text(line) if in_cri_format else ("", "stderr", line)
        if output == Format.json:
            entry = {"time": moment, "stream": stream, "text": text} if moment else {"stream": stream, "text": text}
            say(msgspec.json.encode(entry).decode())
        else:
            say(text)
        if follow:
            sys.stdout.flush()
