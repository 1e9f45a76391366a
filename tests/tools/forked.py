"""Python programs that a test starts many times: a server imports their modules once, and forks for each start.

A program that was started so has its own process, folder, outputs and signals, like one that was started by
:class:`subprocess.Popen`. Only its imports are done already.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile

SERVER = """
import importlib, json, os, runpy, signal, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
for name in sys.argv[2:]:
    importlib.import_module(name)
while True:
    message, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 4)
    if not message:
        sys.exit()
    child = os.fork()
    if not child:
        break
    channel.send(str(child).encode())
    os.write(descriptors[3], str(os.waitpid(child, 0)[1]).encode())
    for descriptor in descriptors:
        os.close(descriptor)
channel.close()
for target, descriptor in enumerate(descriptors[:3]):
    os.dup2(descriptor, target)
for descriptor in descriptors:
    os.close(descriptor)
sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1, errors="backslashreplace")
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv, folder = json.loads(message)
os.chdir(folder)
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Server:
    """Starts a program in processes that have imported some modules; one process at a time.

    ``command`` is the program's: the interpreter, which is the server's in fact, the file, and its first arguments.
    """

    def __init__(self, command, *modules):
        self.command = [os.fsdecode(word) for word in command[1:]]
        self.channel, theirs = socket.socketpair()
        with theirs:
            server = [sys.executable, "-c", SERVER, str(theirs.fileno()), *modules]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            self.process = subprocess.Popen(server, pass_fds=[theirs.fileno()], **pipes)

    def close(self):
        self.channel.close()
        assert self.process.wait(timeout=60) == 0

    def start(self, folder, *arguments):
        return Program(self.channel, [*self.command, *arguments], folder)

    def run(self, folder, *arguments):
        program = self.start(folder, *arguments)
        outputs = program.communicate(timeout=300)
        return subprocess.CompletedProcess([*self.command, *arguments], program.returncode, *outputs)


class Program:
    """A running program, with the attributes of ``subprocess.Popen``: ``stdout`` is a pipe, ``stderr`` a file."""

    def __init__(self, channel, command, folder):
        output, theirs = os.pipe()
        status, told = os.pipe()
        self.stdout, self.status = os.fdopen(output), os.fdopen(status)
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # communicate() closes it
        self.returncode = None
        message = json.dumps([command, os.fsdecode(folder)])
        with open(os.devnull) as nothing:
            descriptors = [nothing.fileno(), theirs, self.stderr.fileno(), told]
            socket.send_fds(channel, [message.encode()], descriptors)
        os.close(theirs)
        os.close(told)
        self.pid = int(channel.recv(20))

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self.status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the program", timeout)
            with self.status:
                self.returncode = os.waitstatus_to_exitcode(int(self.status.read()))
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=None):
        """The rest of the output, and all errors."""
        with self.stdout, self.stderr:
            output = self.stdout.read()
            self.wait(timeout)
            self.stderr.seek(0)
            return output, self.stderr.read()
