"""The Connect protocol, servers as the environment names them, and what outlives a server that is away."""

import os
import threading
import time
import unittest
from unittest import mock

from common import Case, berth
from fake import DIAGNOSIS, Cut, FakeServer, Refusal, certificates, private_directory
from berth._errors import Away
from berth._service import service
from berth._transport import Server


class Calls(Case):
    def test_send_json_with_the_token_and_return_json(self):
        self.server.methods["Info"] = lambda r: {"version": "1", "got": r}
        self.assertEqual(service().call("Info", {"a": "ü"}), {"version": "1", "got": {"a": "ü"}})
        method, _, headers = self.server.requests[0]
        self.assertEqual(method, "Info")
        self.assertEqual(headers["Authorization"], "Bearer " + self.TOKEN)
        self.assertEqual(headers["Connect-Protocol-Version"], "1")
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Host"], f"127.0.0.1:{self.server.port}")

    def test_raise_the_error_of_the_server_with_its_diagnosis(self):
        def refuse(_):
            raise Refusal("invalid_argument", "site-a would not take this task", DIAGNOSIS)

        self.server.methods["SubmitTask"] = refuse
        with self.assertRaises(berth.Error) as caught:
            service().call("SubmitTask", {})
        error = caught.exception
        self.assertEqual((str(error), error.code, error.cause), ("site-a would not take this task", "invalid", "InsufficientMemory"))
        self.assertEqual(error.remedy, "ask for less: worker_memory")
        self.assertEqual(error.diagnosis.evidence[0].text, "0/1 nodes")
        self.assertEqual(error.diagnosis.since.year, 2026)
        self.assertEqual(len(self.server.requests), 1, "it was tried again")

    def test_codes_are_those_of_berth(self):
        for wire, code in {"not_found": "not_found", "failed_precondition": "conflict", "unauthenticated": "unauthorized", "permission_denied": "forbidden"}.items():
            def refuse(_, wire=wire):
                raise Refusal(wire, "no")

            self.server.methods["Info"] = refuse
            with self.assertRaises(berth.Error) as caught:
                service().call("Info", {})
            self.assertEqual(caught.exception.code, code)

    def test_a_cut_answer_is_asked_for_again_with_the_same_key(self):
        def cut_once(_):
            if len(self.server.requests) == 1:
                raise Cut
            return {"task": {"id": "t1", "state": "queued"}}

        self.server.methods["SubmitTask"] = cut_once
        self.assertEqual(berth.submit("busybox").id, "t1")
        keys = [r["key"] for r in self.server.asked("SubmitTask")]
        self.assertEqual(len(keys), 2)
        self.assertEqual(keys[0], keys[1])
        self.assertGreaterEqual(len(keys[0]), 20)

    def test_half_an_answer_is_none(self):
        def half(_):
            self.server.missing = 10 if len(self.server.requests) == 1 else 0
            return {"version": "1"}

        self.server.methods["Info"] = half
        self.assertEqual(service().call("Info", {}), {"version": "1"})
        self.assertEqual(len(self.server.requests), 2)

    def test_unavailable_is_tried_again_and_given_up(self):
        def away(_):
            if len(self.server.requests) < 4:
                raise Refusal("unavailable", "the cluster can't be reached")
            return {}

        self.server.methods["Info"] = away
        self.assertEqual(service().call("Info", {}), {})
        self.server.requests.clear()

        def gone(_):
            raise Refusal("unavailable", "the cluster can't be reached")

        self.server.methods["Info"] = gone
        with self.said() as said, self.assertRaises(berth.Error) as caught:
            service().call("Info", {})
        self.assertEqual(caught.exception.code, "unavailable")
        self.assertRegex(str(caught.exception), r"the cluster can't be reached \(it was tried for \d+ s\)")
        self.assertIn("berth: waiting: the cluster can't be reached", said.getvalue())

    def test_a_server_that_restarts_is_waited_for(self):
        port = self.server.port
        self.server.stop()

        def again():
            time.sleep(0.4)
            other = FakeServer(token=self.TOKEN, port=port)
            other.methods["Info"] = lambda _: {"version": "2"}
            self.addCleanup(other.stop)

        threading.Thread(target=again).start()
        self.assertEqual(service().call("Info", {}), {"version": "2"})

    def test_a_proxy_and_something_else_are_told_apart(self):
        self.server.raw = (502, "text/html", b"<html>bad gateway")
        with self.said(), self.assertRaisesRegex(berth.Error, "a proxy answered 502"):
            service().call("Info", {})
        self.assertGreater(len(self.server.requests), 2)
        self.server.requests.clear()
        for raw in ((200, "text/html", b"<html>welcome"), (404, "text/plain", b"404"), (302, "text/html", b"")):
            self.server.raw = raw
            with self.assertRaisesRegex(berth.Error, f"not a server of Berth.*{raw[0]}"):
                service().call("Info", {})
        self.assertEqual(len(self.server.requests), 3)


class Streams(Case):
    def test_yield_messages_to_the_end(self):
        self.server.methods["WatchTask"] = lambda r: iter([{"task": {"id": r["id"], "n": n}} for n in range(3)] + [{}])
        got = list(service().stream("WatchTask", {"id": "t1"}))
        self.assertEqual(got, [{"task": {"id": "t1", "n": n}} for n in range(3)] + [{}])
        self.assertEqual(self.server.requests[0][2]["Content-Type"], "application/connect+json")

    def test_large_messages_come_whole(self):
        text = "x" * 3_000_000
        self.server.methods["TaskLogs"] = lambda _: iter([{"data": text}])
        self.assertEqual(list(service().stream("TaskLogs", {})), [{"data": text}])

    def test_an_error_at_the_end_is_raised(self):
        def watch(_):
            yield {"a": 1}
            raise Refusal("not_found", "no further attempt", DIAGNOSIS)

        self.server.methods["TaskLogs"] = watch
        got = []
        with self.assertRaises(berth.Error) as caught:
            for message in service().stream("TaskLogs", {}):
                got.append(message)
        self.assertEqual((got, caught.exception.code, caught.exception.cause), ([{"a": 1}], "not_found", "InsufficientMemory"))

    def test_an_error_at_the_beginning_is_raised(self):
        self.environ({"BERTH_TOKEN": "wrong"})
        self.server.methods["WatchTask"] = lambda _: iter(())
        with self.assertRaisesRegex(berth.Error, "a token is needed"):
            list(service().stream("WatchTask", {}))

    def test_one_that_is_cut_goes_on_behind_what_was_yielded(self):
        def logs(r):
            offset = int(r.get("offset", 0))
            for n in range(offset, 6):
                if n == 3 and offset == 0:
                    raise Cut
                yield {"data": str(n), "offset": str(n + 1)}

        self.server.methods["TaskLogs"] = logs
        message = {"id": "t1"}
        got = [m["data"] for m in service().stream("TaskLogs", message, seen=lambda m: message.update(offset=m["offset"]))]
        self.assertEqual(got, list("012345"))
        self.assertEqual(len(self.server.requests), 2)

    def test_a_server_that_ends_is_waited_for(self):
        def watch(_):
            if len(self.server.requests) < 3:
                raise Refusal("unavailable", "this process is about to end", ending=True)
            yield {"a": 1}

        self.server.methods["WatchTask"] = watch
        self.assertEqual(list(service().stream("WatchTask", {})), [{"a": 1}])

    def test_a_deadline_ends_a_silent_stream(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def watch(_):
            yield {"a": 1}
            release.wait(20)

        self.server.methods["WatchTask"] = watch
        began = time.monotonic()
        with self.assertRaises(TimeoutError):
            list(service().stream("WatchTask", {}, deadline=time.monotonic() + 0.3))
        self.assertLess(time.monotonic() - began, 3)


class Addresses(Case):
    def test_wrong_ones_are_refused_before_anything_is_sent(self):
        for address, why in {
            "berth.example.org:7070": "https://HOST:PORT", "http://berth.example.org": "could be read by others", "ftp://x": "https://HOST:PORT",
            "https://user:pw@host": "token is given apart", "https://host?x=1": "more than", "https://host:x": "https://HOST:PORT", "unix:///var/lib": "BERTH_DATA", "https://": "HOST",
        }.items():
            with self.assertRaisesRegex(berth.Error, why, msg=address) as caught:
                Server(address)
            self.assertNotIn("pw", str(caught.exception))

    def test_the_token_comes_from_a_file_too(self):
        path = os.path.join(private_directory(self), "token")
        with open(path, "w") as file:
            file.write(f"  {self.TOKEN}\n")
        self.server.methods["Info"] = lambda _: {}
        self.environ({"BERTH_TOKEN": None, "BERTH_TOKEN_FILE": path})
        service().call("Info", {})
        open(path, "w").close()
        with self.assertRaisesRegex(berth.Error, "BERTH_TOKEN_FILE is empty"):
            service()
        os.remove(path)
        with self.assertRaisesRegex(berth.Error, "cannot read the token"):
            service()

    def test_configure_is_before_the_environment(self):
        self.server.methods["Info"] = lambda _: {}
        address = os.environ["BERTH_SERVER"]
        self.environ({"BERTH_SERVER": "http://127.0.0.1:1", "BERTH_TOKEN": None})
        berth.configure(server=address, token=self.TOKEN)
        service().call("Info", {})

    def test_the_token_is_shown_nowhere(self):
        s = service()
        self.assertNotIn(self.TOKEN, repr(s) + repr(s.transport))
        self.server.stop()
        with self.said() as said, self.assertRaises(berth.Error) as caught:
            s.call("Info", {})
        self.assertNotIn(self.TOKEN, str(caught.exception) + said.getvalue())

    def test_a_path_before_the_api_is_kept(self):
        self.server.methods["Info"] = lambda _: {}
        berth.configure(server=os.environ["BERTH_SERVER"] + "/berth/")
        self.assertEqual(service().transport.prefix, "/berth")
        service().call("Info", {})

    def test_a_proxy_of_the_environment_is_used_but_for_loopback(self):
        self.environ({"HTTPS_PROXY": "http://ann:p%40ss@proxy.example.org:3128", "NO_PROXY": "intern.example.org"})
        self.assertEqual(Server("https://berth.example.org").proxy, ("proxy.example.org", 3128, {"Proxy-Authorization": "Basic YW5uOnBAc3M="}))
        self.assertIsNone(Server("https://intern.example.org").proxy)
        self.assertIsNone(Server("https://127.0.0.1:1").proxy)


class TLS(Case):
    def serve(self, names="IP:127.0.0.1,DNS:localhost"):
        directory = private_directory(self)
        ca, cert, key = certificates(directory, names)
        server = FakeServer(token=self.TOKEN, certificate=(cert, key))
        server.methods["Info"] = lambda _: {"version": "1"}
        self.addCleanup(server.stop)
        self.environ({"BERTH_SERVER": f"https://127.0.0.1:{server.port}"})
        return ca, server

    def test_is_verified_with_the_ca_of_the_file(self):
        ca, server = self.serve()
        with self.assertRaisesRegex(berth.Error, "CA that isn't known here.*BERTH_CA_FILE"):
            service().call("Info", {})
        self.environ({"BERTH_CA_FILE": ca})
        self.assertEqual(service().call("Info", {}), {"version": "1"})
        self.assertEqual(len(server.requests), 1)

    def test_another_name_is_refused(self):
        ca, server = self.serve("DNS:elsewhere")
        self.environ({"BERTH_CA_FILE": ca})
        with self.assertRaisesRegex(berth.Error, "another name"):
            service().call("Info", {})
        self.assertEqual(server.requests, [])

    def test_a_ca_file_that_is_none_is_told(self):
        self.serve()
        self.environ({"BERTH_CA_FILE": "/does/not/exist"})
        with self.assertRaisesRegex(berth.Error, "cannot read the CA file"):
            service()
        self.environ({"BERTH_CA_FILE": __file__})
        with self.assertRaisesRegex(berth.Error, "holds no PEM certificate"):
            service()

    def test_a_server_without_it_is_told(self):
        self.server.methods["Info"] = lambda _: {}
        self.environ({"BERTH_SERVER": f"https://127.0.0.1:{self.server.port}"})
        with mock.patch("berth._service.PATIENCE", 0.1), self.said(), self.assertRaisesRegex(berth.Error, "TLS|went away"):
            service().call("Info", {})

    def test_nothing_listens(self):
        self.server.stop()
        with self.said(), self.assertRaises(berth.Error) as caught:
            service().call("Info", {})
        self.assertNotIsInstance(caught.exception, Away)
        self.assertIn("can't be reached", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
