"""The implementation of dev/stack: real servers on this machine. README.md explains their purpose."""
