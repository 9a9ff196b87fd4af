"""What docs/performance.md says around its table."""

BEGIN = "<!-- benchmarks: begin -->"
END = "<!-- benchmarks: end -->"

PAGE = f"""# Performance

`make bench` measures what the stages take on this machine, beside other tools and beside what \
the machine can do at most. It installs lm-evaluation-harness and TRL into `.venv-bench/`, which \
`make repro` never does, runs on the models and questions of the reproduced default study, writes \
`benchmarks/results.json` and puts the table below between its markers: no number in it is typed. \
`make bench ARGS='--only evaluate --repeats 3'` runs a part; `benchmarks/` has one file for each.

## The table

{BEGIN}
{END}

## How to read it

- **By turns.** Every contestant lives in a process of its own with the same number of threads, \
is loaded before the clock starts, runs once without being counted, and then the contestants take \
turns, round after round, so that a machine that slows down slows all of them. Values are medians \
over rounds with [smallest, largest]; a figure is the ratio of two medians with the smallest and \
largest ratio of a round.
- **The ceiling** is the fastest of a few float32 matrix products, large ones and those of this \
model's own shapes, measured in the same rounds. It holds for one machine.
- **Useful operations** are counted from shapes, two for a multiplication and an addition: linear \
layers for each token of a question's tree, attention for each pair of tokens that see each \
other, the output matrix for each row that is read. Padding, a context that is run once more for \
another choice, and logits that nobody reads take time and count nothing. A backward pass counts \
as two forward passes. Both sides of a contest are given the same count: that of the task.
- **evaluate** against lm-evaluation-harness: `HFLM` in float32 on the same checkpoint, on a task \
of its own with the same prompts, at the batch size that was fastest for it. Timed is what leads \
from texts to log-probabilities, on both sides. The choices of all questions are compared, and on \
a few questions the accuracies that it computes itself.
- **Training steps** are those of the stages' own trainer, from one batch's loss to the next \
one's: backward pass, gradient clipping, optimizer, logs, next batch, forward pass.
- **KL step / CE step** gives both losses the same texts, context and right choice, and the same \
positions, so that they differ in the loss and its record only.
- **distill** against TRL's GKD trainer with `lmbda=0` (off-policy) and `beta=0` (forward KL): an \
example is a question with one of its choices. GKD runs each as a text of its own, and the \
teacher at every step; regrow runs the tree of all choices and reads the teacher's record. The \
record is made once and read by every run of the sweep, so the first line leaves its cost out, \
and the second counts it in full for a single run. On the same texts, with a whole record, both \
losses are the same number (below the table).
- **Peak memory** is the process's largest resident set, pages of mapped files among it; "without \
mapped files" is the largest that was seen without them.
- **Where the time goes**: percent of the processor's time by kind of operator, under torch's \
profiler, which slows small operators down more than large ones; below the table stand the other \
kinds. The last lines of that part are what was tried and not taken: `torch.compile`, and two \
runs at once with a thread each (examples a second of both together).
- **Stages** run with the study's own `.venv`, which holds less to import than `.venv-bench`.
- **Process start to first batch**: from the start of the process to the first call of the model; \
for a stage without a model, to its first look at its data.
- **Growth**: a line fitted to three sizes. The 100,000 questions are made up, and their model \
has two layers.
"""
