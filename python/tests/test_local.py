"""The store of this machine, through a berth process of our own."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
import unittest

from common import Case, berth
from fake import private_directory, program
from berth import _local
from berth._service import service


class LocalProcess(Case):
    def setUp(self):
        super().setUp()
        self.binary = program(private_directory(self))
        self.environ({"BERTH_SERVER": None, "BERTH_TOKEN": None, "BERTH_BINARY": self.binary})
        self.addCleanup(berth.disconnect)

    def pid(self):
        return service().call("Info", {})["pid"]

    def test_is_one_and_shared(self):
        self.assertTrue(service().local)
        self.assertEqual(self.pid(), self.pid())
        self.assertEqual(berth.clusters(), [])

    def test_its_socket_is_for_this_user_alone(self):
        self.pid()
        directory = _local.shared()._directory
        self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o700)
        berth.disconnect()
        self.assertFalse(os.path.exists(directory))

    def test_a_deep_directory_for_temporary_files_is_not_used(self):
        deep = os.path.join(private_directory(self), "x" * 100)
        os.mkdir(deep)
        import tempfile

        before, tempfile.tempdir = tempfile.tempdir, deep
        try:
            self.pid()
        finally:
            tempfile.tempdir = before
        self.assertLess(len(_local.shared()._directory), 100)

    def test_one_that_died_is_started_again(self):
        first = self.pid()
        os.kill(_local.shared()._process.pid, signal.SIGKILL)
        second = self.pid()
        self.assertNotEqual(first, second)

    def test_it_has_the_environment(self):
        self.environ({"BERTH_DATA": "/data"})
        self.assertEqual(service().call("Info", {})["dataDir"], "/data")

    def test_one_that_does_not_start_says_why(self):
        self.environ({"FAKE_BERTH": "broken"})
        with self.assertRaisesRegex(berth.Error, "api ended before it listened: berth: there is no infra.yml here: run berth infra add"):
            self.pid()

    def test_no_program_says_what_to_set(self):
        self.environ({"BERTH_BINARY": None, "PATH": "/nowhere"})
        with self.assertRaisesRegex(berth.Error, "BERTH_SERVER.*BERTH_BINARY"):
            self.pid()
        self.environ({"BERTH_BINARY": "/nowhere/berth"})
        with self.assertRaisesRegex(berth.Error, "BERTH_BINARY is '/nowhere/berth'"):
            self.pid()

    def run_python(self, code):
        root = os.path.dirname(os.path.dirname(os.path.abspath(berth.__file__)))
        return subprocess.Popen([sys.executable, "-B", "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE, text=True)

    def gone(self, pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    def test_it_ends_with_python(self):
        python = self.run_python("import berth._service as s; print(s.service().call('Info', {})['pid'])")
        pid = int(python.communicate(timeout=60)[0])
        self.assertEqual(python.returncode, 0)
        self.eventually(lambda: self.gone(pid), "the berth process ends")

    def test_it_ends_with_a_python_that_is_killed(self):
        python = self.run_python("import berth._service as s, time; print(s.service().call('Info', {})['pid'], flush=True); time.sleep(60)")
        pid = int(python.stdout.readline())
        python.kill()
        python.communicate()
        self.eventually(lambda: self.gone(pid), "the berth process ends")

    def test_a_child_after_a_fork_has_its_own(self):
        first = self.pid()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, str(self.pid()).encode())
                berth.disconnect()
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as file:
            second = int(file.read())
        os.waitpid(child, 0)
        self.assertNotEqual(first, second)
        self.assertEqual(self.pid(), first)

    def test_it_ends_though_a_child_after_a_fork_lives(self):
        python = self.run_python("""
            import berth._service as s, os, sys, time
            print(s.service().call('Info', {})['pid'], flush=True)
            if os.fork() == 0:
                os.close(1)
                time.sleep(5)
                os._exit(0)
        """)
        pid = int(python.communicate(timeout=60)[0])
        began = time.monotonic()
        self.eventually(lambda: self.gone(pid), "the berth process ends", 4)
        self.assertLess(time.monotonic() - began, 4)


if __name__ == "__main__":
    unittest.main()
