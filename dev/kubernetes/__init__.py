"""The implementation of dev/cluster: a real Kubernetes on this machine. README.md explains its purpose."""
