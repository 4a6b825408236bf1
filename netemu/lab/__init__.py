"""A topology file becomes a running lab: files, processes, readiness, clean-up. The one place where things are wired.

topology    a YAML file -> a checked Topology and its manifests, every mistake with its line
config      Topology -> LabConfig: addresses, node names, ports; what is written to disk
paths       where a lab's state lives
pki         the lab's certificate authority and kubeconfigs
manifests   manifests by the rules of the API server; addons: what every cluster has
supervisor  keeps the two processes of a lab running
control_plane, node_agent   those two processes
bring_up, tear_down         `netemu up` and `netemu down`
"""
