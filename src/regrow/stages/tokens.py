"""Put the calibration and test questions into tokens, for the runtime."""

from pathlib import Path

from regrow.device.tokens import Asked, write_asked
from regrow.evaluate.predictions import SPLITS
from regrow.model.folders import load_tokenizer
from regrow.model.setup import read_trees
from regrow.support.files import replacing
from regrow.tasks.prompts import Format, context, continuations
from regrow.tasks.questions import read_labels


def main(tokenizer: Path, questions: Path, labels: Path, prompt_format: Format, out: Path) -> None:
    """Tokenize every context and choice once, for all files that are scored."""
    loaded = load_tokenizer(tokenizer)
    found = []
    for split in SPLITS:
        asked, trees = read_trees(questions / f"{split}.jsonl", loaded, prompt_format)
        answers = read_labels(labels / f"{split}.jsonl", asked)
        for question, answer, tree in zip(asked, answers, trees, strict=True):
            choices = continuations(question, prompt_format)
            found.append(
                Asked(
                    id=question.id,
                    split=split,
                    answer=answer,
                    texts=[context(question, prompt_format) + choice for choice in choices],
                    context=tree.context,
                    branches=tree.branches,
                    characters=[len(choice) - 1 for choice in choices],
                )
            )
    with replacing(out) as beside:
        write_asked(beside, found)
