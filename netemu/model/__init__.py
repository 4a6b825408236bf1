"""Typed Kubernetes objects, the resources they belong to, selectors, addresses and the error tree.

The API server stores and serves plain JSON and keeps every field it does not know. A component that *decides*
something decodes what it needs into the frozen structs of this package and never indexes a dict again.
"""
