"""`benches/compare` as a command, as far as it measures nothing."""

import argparse
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from rig import adapters, setups
from rig.process import Failed

COMMAND = Path(__file__).resolve().parents[2] / "compare"
BROKEN = 'name = "broken"\nwhat = "ends at once"\nprogram = "false"\nstart = ["{program}"]\nurl = "http://127.0.0.1:{port}/mcp"\n'


def compare(*words):
    return subprocess.run([sys.executable, COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)


def module():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("compare", str(COMMAND))
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
    loader.exec_module(loaded)
    return loaded


class Words(unittest.TestCase):
    def test_help_and_list_name_what_there_is(self):
        for word in ("--rounds", "--seconds", "--rate", "--only", "--append"):
            self.assertIn(word, compare("--help").stdout)
        listed = compare("--list")
        self.assertEqual(listed.returncode, 0)
        names = [line.split(":")[0] for line in listed.stdout.splitlines()]
        self.assertEqual(names, [*setups.NAMES, *adapters.read()])

    def test_what_cannot_be_is_refused_with_advice(self):
        for words, told in ((["--only", "nosuch"], "nosuch"), (["--parts", "nosuch"], "nosuch"), (["--rounds", "0"], "between 1"),
                            (["--rounds", "x"], "no whole number"), (["--install", "nosuch"], "nosuch"),
                            (["--only", "direct", "--parts", "limits"], "nothing is left to measure"), (["--adapters", "/nosuch"], "no folder")):
            refused = compare(*words)
            self.assertIn(refused.returncode, (1, 2), words)
            self.assertIn(told, refused.stderr, words)
            self.assertNotIn("Traceback", refused.stderr)


class Appending(unittest.TestCase):
    ABOUT = {"cpu": "c", "cores": 2, "kernel": "k", "versions": {"nginx": "1"}}

    def before(self, text, about=None, seconds=5):
        compared = module()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "compare.json"
            if text is not None:
                path.write_text(text)
            args = argparse.Namespace(append=True, json=str(path), seconds=seconds, rate=1, gateways_rate=1, gateways_protocol="p",
                                      windows=1, busy=False)
            return compared.before(args, json.loads(json.dumps(about or self.ABOUT))), compared.options(args)

    def earlier(self, **other):
        _, options = self.before(None)
        return json.dumps({"machine": self.ABOUT, "options": options, "began_unix_s": 7.0, "runs": [{"round": 0}], "limits": [],
                           "failed": [], **other})

    def test_rounds_of_the_same_measurement_are_kept(self):
        found, _ = self.before(self.earlier(), {**self.ABOUT, "versions": {"nginx": "1", "haproxy": "2"}})
        self.assertEqual(found["runs"], [{"round": 0}])
        self.assertEqual(found["began_unix_s"], 7.0)
        self.assertEqual(found["machine"]["versions"], {"nginx": "1", "haproxy": "2"})

    def test_without_a_file_it_begins(self):
        self.assertEqual(self.before(None)[0]["runs"], [])

    def test_another_machine_version_or_option_is_refused(self):
        for about in ({**self.ABOUT, "cores": 4}, {**self.ABOUT, "versions": {"nginx": "2"}}):
            with self.assertRaisesRegex(Failed, "another file"):
                self.before(self.earlier(), about)
        with self.assertRaisesRegex(Failed, "another file"):
            self.before(self.earlier(), seconds=6)

    def test_what_is_no_result_is_refused(self):
        for text in ("", "[]", "{}", '{"machine": 1}', self.earlier(runs=None)):
            with self.assertRaisesRegex(Failed, "cannot be read"):
                self.before(text)


class Adapter(unittest.TestCase):
    def test_a_folder_of_ones_own_adds_to_the_list(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "broken.toml").write_text(BROKEN)
            self.assertIn("broken: ends at once; installed", compare("--adapters", folder, "--list").stdout)


if __name__ == "__main__":
    unittest.main()
