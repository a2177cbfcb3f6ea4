"""What the scripts beside this folder share: they start servers, drive them, and compare what they cost.

    process.py   servers that run on one core, are measured, and are ended
    install.py   programs that are missing
    configs.py   nginx, haproxy and Tollgate, each as it is configured for a measurement
    calls.py     the calls that are sent, and the replies that a fixed upstream gives
    wrk.py       load by wrk
    stats.py     medians, intervals, ratios
    machine.py   what the figures were measured on
    output.py    tables and JSON
"""
