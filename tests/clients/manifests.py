"""Manifests that the kubectl tests share."""

from __future__ import annotations

APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tier: front}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: server
        image: nginx
        ports: [{containerPort: 80}]
        env: [{name: A, value: "1"}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""

UNKNOWN_FIELD = """
apiVersion: v1
kind: Service
metadata: {name: typo}
spec: {selectorr: {app: web}, ports: [{port: 80}]}
"""

UNKNOWN_KIND_BETWEEN = """
apiVersion: v1
kind: ConfigMap
metadata: {name: before}
---
apiVersion: example.com/v1
kind: Gadget
metadata: {name: gadget}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: after}
"""

NODE = """
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {node-role.kubernetes.io/control-plane: ""}}
"""

UNSERVED_KIND = """
apiVersion: v1
kind: PodTemplate
metadata: {name: db}
template: {metadata: {labels: {app: db}}}
"""
