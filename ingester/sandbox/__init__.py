"""SQL that cannot hurt: a SELECT by anyone, run in a child process with limits of its own.

Why a process: in ours, user SQL is not containable. `repeat('x', 3e9)` ignores memory limit and
interrupt, and with external access off a SELECT still reads our own database file as a blob.

| module | side | what |
|---|---|---|
| `queries` | server | who may ask now, the deadline, the warm spare child |
| `process` | server | one child: started, asked once, killed |
| `messages` | both | the request, and the frames of the answer |
| `child` | child | parse, check, run, write |
| `allowed`, `functions` | child | which trees, tables and functions are taken |
| `confine` | child | memory, time, files and network, by the kernel |
| `formats`, `values` | child | rows as JSON, NDJSON, CSV, Parquet, Arrow |

Four walls, each enough for most attacks: the allow-list over the parsed tree; DuckDB with external
access off and its configuration locked; Landlock, by which the kernel opens to the child nothing
but the Parquet files of this query; and its limits, with SIGKILL at the deadline. The child never
sees a database file: it reads upload files and increments (`store/increments.py`).
"""
