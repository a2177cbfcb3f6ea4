"""What the scripts beside this folder share: they start servers, drive them, and compare what they cost.

    process.py   servers that run on one core, are measured, and are ended
    install.py   programs that are missing
    cluster.py   three voters, and gateways that lease from them
    configs.py   nginx, haproxy and Tollgate, each as it is configured for a measurement
    calls.py     the calls that are sent, and the replies that a fixed upstream gives
    wrk.py       load by wrk
    loadtest.py  load, exactness and a recording upstream by tollgate-loadtest
    setups.py    what `compare` measures; adapters.py, adapters/: other gateways
    comparison.py, tables.py: its rounds, and what it shows of them
    stats.py     medians, intervals, ratios
    machine.py   what the figures were measured on
    output.py    tables and JSON
"""
