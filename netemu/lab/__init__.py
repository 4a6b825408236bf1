"""A topology file becomes a running lab: files, processes, readiness, clean-up. The one place where things are wired.

topology    a YAML file -> a checked Topology and its manifests, every mistake with its line
config      Topology -> LabConfig: addresses, node names, ports; what is written to disk
paths       where a lab's state lives
pki         the lab's certificate authority and kubeconfigs
manifests   manifests by the rules of the API server; addons: what every cluster has
processes   what the processes of a lab are called
supervisor  keeps them running
control_plane, node_agent   two of them
beginning   what a control plane needs before it can begin
member, etcd_member, etcd_pki   a control plane of several: what members share, and the etcd of each
bring_up, tear_down         `netemu up` and `netemu down`
"""
