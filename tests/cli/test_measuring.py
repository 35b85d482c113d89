"""What the verbs that measure do with their report; their figures are tested in tests/eval."""

import pytest


@pytest.mark.parametrize("verb, figure", [
    (("eval", "perplexity", "--seqlen", "16", "--max-windows", "1"), b"perplexity "),
    (("eval", "compare", "--seqlen", "16", "--max-windows", "1"), b"mean KL "),
    (("benchmark", "generation", "--batch-sizes", "1", "--prompt-tokens", "8", "--output-tokens", "2", "--repetitions", "1"),
     b"decode, whole batch"),
])
def test_a_report_that_cannot_be_written_does_not_cost_the_table(run, model, tmp_path, verb, figure):
    done = run(*verb, model, "--threads", "1", "--json", tmp_path / "missing" / "report.json")
    assert done.returncode == 1
    assert figure in done.stdout
    assert done.stderr.startswith(b"lanner: error: ") and b"report.json" in done.stderr
