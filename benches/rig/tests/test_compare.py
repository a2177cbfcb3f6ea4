"""What `benches/compare` works out from its runs. Run: python3 -m unittest discover -s benches/rig/tests -t benches"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
from pathlib import Path

from rig import adapters, calls, loadtest, stats, tables
from rig.comparison import Disturbed, Part
from rig.process import Failed, Rig, Server


def run(setup, number, cpu, **other):
    return {"part": "speed", "setup": setup, "round": number, "cpu_us_request": cpu, "memory_bytes": 2**20, "idle_cpu_us_second": 0.0, "p50_us": 200.0,
            "p99_us": 900.0, "requests": 10, "repeats": 0, "kept_up": True, "undisturbed": True, "protocol": calls.VERSION,
            "processes": [{"name": setup, "cpu_us_request": cpu}], **other}


class Quantiles(unittest.TestCase):
    def test_a_quantile_is_the_value_at_or_below_which_that_share_lies(self):
        buckets = [[10, 50], [20, 49], [30, 1]]
        for share, value in ((0, 10), (0.5, 10), (0.51, 20), (0.99, 20), (0.999, 30), (1, 30)):
            self.assertEqual(loadtest.quantile(buckets, share), value, share)

    def test_without_values_it_is_0(self):
        self.assertEqual(loadtest.quantile([], 0.99), 0)


class Intervals(unittest.TestCase):
    def test_fewer_than_six_values_hold_no_interval(self):
        self.assertEqual(stats.interval([1, 2, 3, 4, 5]), (None, None, None))
        low, high, held = stats.interval([6, 1, 5, 2, 4, 3])
        self.assertEqual((low, high), (1, 6))
        self.assertAlmostEqual(held, 1 - 2 / 64)


class Tables(unittest.TestCase):
    def test_ratios_are_formed_within_rounds_and_a_missing_round_is_left_out(self):
        runs = [run("nginx", 0, 10.0), run("audit", 0, 20.0), run("nginx", 1, 40.0), run("audit", 1, 40.0), run("audit", 2, 99.0)]
        audit = tables.summaries("speed", ["nginx", "audit"], "nginx", runs)[1]
        self.assertEqual(audit["rounds"], 3)
        self.assertEqual(audit["ratio"]["median"], 1.5)
        self.assertEqual(audit["ratio"]["rounds"], 2)

    def test_runs_of_another_part_do_not_mix_in(self):
        runs = [run("nginx", 0, 10.0), run("nginx", 0, 99.0, part="gateways")]
        self.assertEqual(tables.summaries("speed", ["nginx"], "nginx", runs)[0]["cpu_us_request"]["median"], 10.0)

    def test_a_percentile_that_one_round_does_not_have_is_not_told(self):
        runs = [run("nginx", 0, 10.0, p999_us=5000.0), run("nginx", 1, 10.0)]
        found = tables.summaries("speed", ["nginx"], "nginx", runs)
        self.assertNotIn("p999_us", found[0])
        self.assertIn("0.90", tables.table(found, "nginx"))

    def test_short_rounds_together_tell_what_none_of_them_can(self):
        buckets = [[1_000_000, 297], [9_000_000, 3]]
        runs = [run("nginx", at, 10.0, buckets=buckets) for at in range(2)]
        for one in runs:
            del one["p99_us"]
        found = tables.summaries("speed", ["nginx"], "nginx", runs)[0]
        # 600 values: six lie beyond the 99th percentile, none beyond the 99.9th.
        self.assertEqual(found["p99_us"]["median"], 1000.0)
        self.assertNotIn("p999_us", found)
        self.assertIn("all rounds together", tables.table([found], "nginx"))

    def test_a_setup_that_did_not_keep_up_is_marked(self):
        found = tables.summaries("speed", ["nginx"], "nginx", [run("nginx", 0, 10.0, kept_up=False)])
        self.assertIn("nginx †", tables.table(found, "nginx"))
        self.assertIn("did not keep up", tables.table(found, "nginx"))

    def test_a_setup_that_was_disturbed_is_marked(self):
        found = tables.summaries("speed", ["nginx"], "nginx", [run("nginx", 0, 10.0), run("nginx", 1, 10.0, undisturbed=False)])
        self.assertIn("nginx ‡", tables.table(found, "nginx"))

    def test_cpu_is_told_for_each_process(self):
        nodes = [{"name": f"voter-{at}", "cpu_us_request": 10.0 + at} for at in range(3)]
        found = tables.summaries("speed", ["cluster"], "nginx", [run("cluster", 0, 33.0, processes=nodes)])
        self.assertIn("voter-2", tables.processes(found))
        self.assertIn("12.0", tables.processes(found))

    def test_a_process_that_only_watches_over_another_has_no_line(self):
        nodes = [{"name": "nginx", "cpu_us_request": 0.0}, {"name": "nginx: worker process", "cpu_us_request": 20.0}]
        found = tables.summaries("speed", ["nginx"], "nginx", [run("nginx", 0, 20.0, processes=nodes)])
        self.assertEqual(tables.processes(found), "")

    def test_the_upstream_counts_what_a_limit_admitted(self):
        window = {"admitted": 200, "admitted_upstream": 207, "verdict": "over"}
        text = tables.exactness([{"setup": "nginx", "verdict": "over", "windows": [window, {**window, "admitted_upstream": 205}]}])
        self.assertIn("205–207", text)
        unjudged = {"admitted": 3, "verdict": "not_judged"}
        self.assertIn("0 of 1", tables.exactness([{"setup": "x", "verdict": "not_judged", "windows": [unjudged]}]))


class Rounds(unittest.TestCase):
    class Bench:
        """Takes part in no measurement: it notes who was asked, in which order."""

        def __init__(self, broken=()):
            from collections import Counter
            self.failures, self.asked, self.broken = Counter(), [], broken

        def measured(self, name, rate, seconds, protocol):
            self.asked.append(name)
            if name in self.broken:
                raise (Disturbed if self.broken[name] else Failed)(f"{name} is broken")
            return {"cpu_us_request": 1.0}

    def test_every_setup_is_first_second_and_last_equally_often(self):
        part, orders = Part("speed", ["a", "b", "c"], 1, 1), []
        for number in range(6):
            bench = self.Bench()
            part.round(bench, number, [], [])
            orders.append(bench.asked)
        for place in range(3):
            self.assertEqual(sorted(order[place] for order in orders), ["a", "a", "b", "b", "c", "c"])

    def test_a_broken_setup_is_reported_each_time_and_left_alone_after_two(self):
        for disturbed in (False, True):
            part, bench, runs, failed = Part("speed", ["a", "b"], 1, 1), self.Bench({"b": disturbed}), [], []
            for number in range(4):
                part.round(bench, number, runs, failed)
            self.assertEqual([one["setup"] for one in runs], ["a"] * 4)
            self.assertEqual([(one["setup"], one["round"], one["why"]) for one in failed], [("b", 0, "b is broken"), ("b", 1, "b is broken")])
            self.assertEqual(bench.asked.count("b"), 2)


class Adapters(unittest.TestCase):
    def test_every_shipped_adapter_can_be_read_and_has_the_name_of_its_file(self):
        found = adapters.read()
        self.assertEqual(sorted(found), sorted(path.stem for path in adapters.FOLDER.glob("*.toml")))
        self.assertGreaterEqual(len(found), 2)

    def test_an_unknown_or_missing_key_is_named(self):
        for text, name in (('name = "x"\nwhat = "y"\nprogram = "z"\nstart = []\nurl = "u"\nurls = "u"', "urls"), ('name = "x"', "program")):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "x.toml").write_text(text)
                with self.assertRaisesRegex(Failed, name):
                    adapters.read([folder])

    def test_the_documented_keys_are_those_that_are_read(self):
        lines = (adapters.FOLDER / "README.md").read_text().splitlines()
        keys = [line.split("|")[1] for line in lines if line.startswith("| `")]
        documented = {key for cell in keys for key in cell.replace("`", "").replace(",", " ").split()}
        self.assertEqual(documented, adapters.KNOWN)

    def test_files_have_their_places_filled_in(self):
        filled = adapters._Filled({"port": 7, "upstream": "http://u/mcp"})
        self.assertEqual(filled('{"url": "{upstream}", "at": [{port}], "{other}": {}}'), '{"url": "http://u/mcp", "at": [7], "{other}": {}}')

    def test_a_started_server_is_not_the_gateway(self):
        self.assertTrue(adapters.is_upstream(["/x/tollgate-loadtest", "upstream", "--stdio"]))
        self.assertFalse(adapters.is_upstream(["/x/python3", "/x/mcp-proxy", "--", "/x/tollgate-loadtest", "upstream"]))
        self.assertFalse(adapters.is_upstream([]))

    def test_shipped_adapters_run_one_process_on_loopback(self):
        for path in adapters.FOLDER.glob("*.toml"):
            self.assertIn("127.0.0.1", tomllib.loads(path.read_text())["url"], path)


class Processes(unittest.TestCase):
    def test_the_clock_of_a_process_agrees_with_its_own(self):
        code = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\nimport sys; sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
            own = float(popen.stdout.readline())
            seen = Server("busy", popen, None).cpu_seconds()
            popen.stdin.close()
        self.assertGreaterEqual(seen, own)
        self.assertLess(seen, own + 0.1)

    def test_what_a_slot_started_ends_with_it_even_where_the_leader_is_gone(self):
        # The leader starts a child that would outlive it, and ends.
        code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
        with Rig() as rig:
            with rig.slot("one") as slot:
                server = slot.start("leader", [sys.executable, "-c", code], os.sched_getaffinity(0))
                server.popen.wait(20)
                child = int(server.last_words())
                os.kill(child, 0)
            for _ in range(100):
                state = _state(child)
                if state in (None, "Z"):
                    break
                time.sleep(0.05)
            self.assertIn(state, (None, "Z"))
            self.assertFalse((rig.dir / "one").exists())

    def test_ctrl_c_is_heard_again_after_the_servers_have_ended(self):
        with Rig():
            pass
        self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


if __name__ == "__main__":
    unittest.main()
