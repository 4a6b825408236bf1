# Sourced by the other scripts: makes sure that what they need is here, and installs only what is missing.
#
# `need_packages COMMAND:PACKAGE ...` installs Debian packages whose command, or library (libNAME.so.N), is absent.
# `need_venv [EXTRA]` makes .venv and brings it up to date with pyproject.toml.
# Both say what they do, cost a few milliseconds when there is nothing to do, and may run twice at once.

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$root/.venv
export PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "error: $*" >&2
    exit 1
}

have() {
    case $1 in
        *.so.*) [[ $(ldconfig -p) == *"$1"* ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

need_packages() {
    local pair missing=()
    for pair in "$@"; do
        have "${pair%%:*}" || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || fail "missing here: ${missing[*]}; install these packages"
    [ "$(id -u)" -eq 0 ] || fail "missing here: ${missing[*]}; run this once as root to install them"
    echo "installing packages: ${missing[*]}" >&2
    local log
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: ${missing[*]}"
    fi
    rm -f "$log"
}

# `need_etcd` puts Debian's etcd into .etcd where there is none: installed, it would start as a service of this machine.
need_etcd() {
    command -v etcd >/dev/null && return
    if [ ! -x "$root/.etcd/usr/bin/etcd" ]; then
        command -v apt-get >/dev/null || fail "missing here: etcd; install it"
        echo "unpacking etcd-server into .etcd" >&2
        rm -rf "$root/.etcd" "$root/.etcd.new"
        mkdir "$root/.etcd.new"
        (cd "$root/.etcd.new" && { apt-get download etcd-server ||
            { apt-get update && apt-get download etcd-server; }; }) >"$root/.etcd.log" 2>&1 ||
            fail "apt-get could not download etcd-server: $(tail -n 1 "$root/.etcd.log")"
        dpkg-deb -x "$root"/.etcd.new/etcd-server_*.deb "$root/.etcd.new"
        rm -f "$root"/.etcd.new/*.deb "$root/.etcd.log"
        mv "$root/.etcd.new" "$root/.etcd"
    fi
    export PATH=$root/.etcd/usr/bin:$PATH
}

need_venv() {
    local extra=${1:-} stamp=$venv/.installed${1:+-$1}
    [ -e "$stamp" ] && [ ! "$root/pyproject.toml" -nt "$stamp" ] && return
    need_packages python3:python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    # Debian packs venv apart from Python, and only using it tells.
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages no-such-command:python3-venv
    exec 9>"$root/.venv.lock"
    flock 9
    if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
        echo "installing Python packages into .venv" >&2
        [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
        "$venv/bin/python" -m pip install -qq --disable-pip-version-check --editable "$root${extra:+[$extra]}" ||
            fail "pip could not install netemu's dependencies"
        touch "$venv/.installed" "$stamp"
    fi
    exec 9>&-
    # What root installed in somebody's checkout is theirs: they run the unit tests and the checks themselves.
    if [ "$(id -u)" -eq 0 ]; then
        chown -R --reference="$root" "$venv" "$root/.venv.lock"
    fi
}

# `need_vm_kernel` puts Debian's kernel, its network modules and a first root file system into .vm, for scripts/vm.
vm=$root/.vm

need_vm_kernel() {
    [ -e "$vm/initrd" ] && [ ! "$root/scripts/vm_init" -nt "$vm/initrd" ] && return
    [ "$(uname -m)" = x86_64 ] || fail "scripts/vm knows x86_64 only, and this is $(uname -m)"
    mkdir -p "$vm"
    exec 8>"$vm/lock"
    flock 8
    [ -e "$vm/lib" ] || unpack_vm_kernel
    make_vm_initrd
    exec 8>&-
}

unpack_vm_kernel() {
    command -v apt-get >/dev/null || fail "scripts/vm takes its kernel from Debian, and there is no apt-get here"
    local image work=$vm/new
    image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p')
    if [ -z "$image" ]; then
        apt-get update >/dev/null
        image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p')
    fi
    [ -n "$image" ] || fail "apt-get knows no package linux-image-amd64"
    echo "unpacking $image into .vm" >&2
    rm -rf "$work"
    mkdir -p "$work"
    (cd "$work" && { apt-get download "$image" busybox-static ||
        { apt-get update && apt-get download "$image" busybox-static; }; }) >"$vm/log" 2>&1 ||
        fail "apt-get could not download $image: $(tail -n 1 "$vm/log")"
    dpkg-deb --fsys-tarfile "$work"/busybox-static_*.deb | tar -x -C "$work" ./bin/busybox
    # What belongs to networks, file systems and virtual machines; sound, disks and the rest are nine tenths of it.
    local parts=(net lib crypto arch fs/9p fs/fscache fs/netfs fs/overlayfs drivers/net/dummy.ko drivers/net/veth.ko
        drivers/virtio drivers/char/virtio_console.ko drivers/char/hw_random)
    dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb |
        tar -x -C "$work" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' \
            "${parts[@]/#/./lib/modules/*/kernel/}"
    mv "$work"/boot/vmlinuz-* "$work/vmlinuz"
    depmod -b "$work" "$(ls "$work/lib/modules")"
    rm -rf "$work"/*.deb "$work/boot" "$vm/vmlinuz" "$vm/bin"
    mv "$work/vmlinuz" "$work/bin" "$vm"
    mv "$work/lib" "$vm"
    rm -rf "$work"
}

make_vm_initrd() {
    local tree=$vm/initrd.new version file module
    version=$(ls "$vm/lib/modules")
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,dev,proc,sys,modules,root}
    cp "$vm/bin/busybox" "$tree/bin/busybox"
    install -m 755 "$root/scripts/vm_init" "$tree/init"
    for module in virtio_pci 9pnet_virtio 9p overlay virtio_console virtio_rng; do
        modprobe -d "$vm" -S "$version" --show-depends "$module" | sed -n 's/^insmod .*\/kernel\/\([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' | while read -r file; do
        cp "$vm/lib/modules/$version/kernel/$file" "$tree/modules/"
        basename "$file" >>"$tree/modules/order"
    done
    (cd "$tree" && find . | "$vm/bin/busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$vm/initrd.gz"
    rm -rf "$tree"
    mv "$vm/initrd.gz" "$vm/initrd"
}
