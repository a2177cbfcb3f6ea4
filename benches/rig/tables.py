"""Tables of `benches/compare`, made from its runs."""

from collections import Counter

from . import output, stats
from .comparison import SHARES, enough
from .loadtest import quantile

HEAD = ["setup", "CPU µs/call", "ratio", "idle µs/s", "p50 ms", "p99 ms", "p99.9 ms", "MiB", "protocol"]
# Processes that only watch over others are left out of the table.
SHOWN_US_MIN = 0.05
VERDICTS = {"exact": "exact", "over": "over", "short": "short", "not_judged": "not judged"}


def summaries(part, names, base, runs):
    """One entry a setup that was measured: every figure over its rounds, and the ratio of CPU within the rounds."""
    of = {name: {run["round"]: run for run in runs if run["part"] == part and run["setup"] == name} for name in names}
    results = []
    for name in names:
        rounds = list(of[name].values())
        if not rounds:
            continue
        figures = {key: stats.summary([run[key] for run in rounds]) for key in ("cpu_us_request", "idle_cpu_us_second", "memory_bytes", *SHARES)
                   if all(key in run for run in rounds)}
        for key, share in SHARES.items():
            if key not in figures and (value := _pooled(rounds, share)) is not None:
                figures[key] = {**stats.summary([value]), "pooled": True}
        pairs = [(run["cpu_us_request"], of[base][number]["cpu_us_request"])
                 for number, run in of[name].items() if base in of and number in of[base]]
        if shares := stats.ratios(*zip(*pairs, strict=True)) if pairs else []:
            figures["ratio"] = stats.summary(shares)
        results.append({
            "part": part, "setup": name, "protocol": rounds[-1]["protocol"], "rounds": len(rounds),
            "requests": sum(run["requests"] for run in rounds), "repeats": sum(run["repeats"] for run in rounds),
            "kept_up": all(run["kept_up"] for run in rounds), "undisturbed": all(run["undisturbed"] for run in rounds),
            "processes": _processes(rounds), **figures,
        })
    return results


def _pooled(rounds, share):
    """A percentile of all rounds together, µs; None where even they are too few."""
    if not all(run.get("buckets") for run in rounds):
        return None
    counts = Counter()
    for run in rounds:
        for value, count in run["buckets"]:
            counts[value] += count
    return quantile(sorted(counts.items()), share) / 1000 if enough(sum(counts.values()), share) else None


def _processes(rounds):
    """CPU of each process by its name; processes of one name add up in a round."""
    sums = []
    for run in rounds:
        sums.append(Counter())
        for process in run["processes"]:
            sums[-1][process["name"]] += process["cpu_us_request"]
    return {name: stats.summary([one[name] for one in sums]) for name in sorted(set().union(*sums))}


def table(results, base):
    """Markdown, and the notes that belong below it."""
    def cell(one, key, scale, digits):
        if key not in one:
            return "–"
        return stats.shown({name: value / scale if name in ("median", "low", "high", "min", "max") and value is not None else value
                            for name, value in one[key].items()}, digits)

    rows = [[
        one["setup"] + ("" if one["kept_up"] else " †") + ("" if one["undisturbed"] else " ‡"),
        cell(one, "cpu_us_request", 1, 1) if one["processes"] else "–",
        cell(one, "ratio", 1, 2) if one["processes"] else "–",
        f"{one['idle_cpu_us_second']['median']:.0f}" if one["processes"] else "–",
        *(cell(one, key, 1000, 2) for key in SHARES),
        f"{one['memory_bytes']['median'] / 2**20:.0f}" if one["processes"] else "–",
        one["protocol"],
    ] for one in results]
    text = output.markdown([f"ratio to {base}" if name == "ratio" else name for name in HEAD], rows)
    if any(one.get(key, {}).get("pooled") for one in results for key in SHARES):
        text += "\n\nA percentile without an interval is that of all rounds together: one round has too few calls for it."
    if not all(one["kept_up"] for one in results):
        text += "\n\n† did not keep up with the rate: its latencies are those of a queue that grows."
    if not all(one["undisturbed"] for one in results):
        text += "\n\n‡ something else took the processors: the figures say little."
    return text


def processes(results):
    """CPU of each process, for setups of several."""
    rows = []
    for one in results:
        shown = [[one["setup"], name, stats.shown(figure, 1)] for name, figure in one["processes"].items()
                 if figure["median"] >= SHOWN_US_MIN]
        rows += shown if len(shown) > 1 else []
    return output.markdown(["setup", "process", "CPU µs/call"], rows) if rows else ""


def exactness(limits):
    """One line a setup: what its limit admitted in each window and by whose count."""
    rows = []
    for one in limits:
        windows = one["windows"]
        judged = [window for window in windows if window["verdict"] != "not_judged"]
        counts = sorted(window.get("admitted_upstream", window["admitted"]) for window in judged)
        audits = {window["admitted_audit"] for window in judged if "admitted_audit" in window}
        rows.append([
            one["setup"], VERDICTS[one["verdict"]], f"{len(judged)} of {len(windows)}",
            (f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]}–{counts[-1]}") if counts else "–",
            "–" if not audits else ", ".join(map(str, sorted(audits))),
        ])
    return output.markdown(["setup", "verdict", "windows judged", "admitted a window", "audit log"], rows)
