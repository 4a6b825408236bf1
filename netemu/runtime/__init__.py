"""Container runtimes behind the CRI's verbs: what runs in a Pod, apart from its network.

`cri.Runtime` is the interface. `emulated.EmulatedRuntime` answers for images with sockets that this process opens in
the Pod's network namespace; `process.ProcessRuntime` really runs commands there. Both keep their state in the Pod's
sandbox directory (`sandboxes`), so a restarted node agent carries on with what is running.
"""
