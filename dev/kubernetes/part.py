"""The base class of all processes of the cluster."""

from processes import Daemon


class Part(Daemon):
    """A process of the cluster. Subclasses define the command of the process, and how to check that it is ready."""

    def __init__(self, cluster, node, name):
        super().__init__(name, cluster.folder)
        self.cluster, self.node = cluster, node
        self.folder = cluster.folder / name
        self.keys = cluster.folder / "keys"

    def prepare(self):
        """Creates the files that the process needs before its start."""

    def command(self):
        raise NotImplementedError

    def is_ready(self):
        return True

    def start(self):
        """Starts the process if it does not run, and waits until it is ready."""
        if not self.pid():
            self.prepare()
            self.launch(self.node.inside(*self.command()))
        self.await_ready(self.is_ready, 90)
