"""What comes out of a sandbox is taken only as checked outputs, and only in answer to what was asked."""

import base64
import json

import pytest

from autograder.exam.grading import Cell, Conversation, Notebook, answered, capped, checked, run, stopped_output
from autograder.jobs import Limits, Usage, Verdict
from autograder.sandbox.base import ForgedReply, Outcome

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n rest").decode()
STREAM = {"output_type": "stream", "name": "stdout", "text": "x"}


def answer(outputs):
    return json.dumps({"outputs": outputs}).encode()


def asked(message):
    """(token, what is asked) of a message to the sandbox."""
    token, _, text = message.partition(b" ")
    return token, json.loads(text)


@pytest.mark.parametrize("output", [
    STREAM, {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["a"]},
    {"output_type": "display_data", "data": {"text/plain": "x", "image/png": PNG}, "metadata": {}},
    {"output_type": "execute_result", "data": {"text/plain": "4"}, "metadata": {}, "execution_count": None}])
def test_known_outputs_are_taken_as_they_are(output):
    assert checked(answer([output])) == [output]


def test_what_is_not_asked_for_is_dropped():
    data = {"text/plain": "x", "text/html": "<script>", "application/javascript": "x"}
    assert checked(answer([{"output_type": "display_data", "data": data, "metadata": {"a": 1}, "x": 2}])) == [
        {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}]


@pytest.mark.parametrize("outputs", [
    None, 7, [7], [None], [{}], [{"output_type": "html"}], [{**STREAM, "name": "other"}], [{**STREAM, "text": 7}],
    [{**STREAM, "text": ["x"]}], [{"output_type": "error", "ename": "E", "evalue": "", "traceback": 7}],
    [{"output_type": "display_data", "data": {"image/png": PNG}}],
    [{"output_type": "display_data", "data": {"text/plain": "", "image/png": "PHN2Zz4="}}],
    [{"output_type": "display_data", "data": {"text/plain": "", "image/png": "%%%"}}],
    [{"output_type": "display_data", "data": {"text/plain": "", "image/png": PNG + "A" * 2**22}}]])
def test_anything_else_is_a_forgery(outputs):
    with pytest.raises(ForgedReply):
        checked(answer(outputs))


@pytest.mark.parametrize("line", [
    b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"cell": "t"}', b"{}", b'{"outputs": 7}'])
def test_an_answer_that_is_none_is_a_forgery(line):
    with pytest.raises(ForgedReply):
        checked(line)


@pytest.mark.parametrize("line", [b"", b" {}", b"other {}", b"{}", b"T {}", b"tt {}"])
def test_an_answer_without_the_token_of_its_question_is_a_forgery(line):
    with pytest.raises(ForgedReply):
        answered(line, b"t")
    with pytest.raises(ForgedReply):
        answered(line, b"")                                                # nothing was asked


def test_one_answer_to_one_question():
    done = {}
    talk = Conversation([], [Cell(id="a", source="1"), Cell(id="b", source="2")], done, Limits()).talk
    assert talk(b"") == b""                                                # not ready yet
    token, first = asked(talk(b"\n"))
    line = token + b" " + answer([STREAM]) + b"\n"
    assert talk(line[:10]) == b""
    other, second = asked(talk(line[10:]))
    assert (first["source"], second["source"]) == ("1", "2")
    assert token != other
    with pytest.raises(ForgedReply):
        talk(token + b" " + answer([]) + b"\n")                            # the answer to an earlier question
    assert done == {"a": [STREAM]}


def test_more_than_was_asked_is_a_forgery():
    talk = Conversation([], [Cell(id="a", source="1")], {}, Limits()).talk
    line = asked(talk(b"\n"))[0] + b" " + answer([]) + b"\n"
    with pytest.raises(ForgedReply, match="more than it was asked"):
        talk(line + line)


def test_after_a_stop_what_defines_runs_again_and_tests_do_not():
    """A stand-in for the sandbox: it dies at the cell `die`, answers the rest."""
    runs = []

    def start(talk, limits):
        message = talk(b"\n")
        names = []
        runs.append(names)
        while message:
            token, read = asked(message)
            names.append(read["name"])
            if read["source"] == "die":
                return Outcome(Verdict.crashed, "died", Usage(cpu_seconds=1, wall_seconds=1))
            message = talk(token + b" " + answer([STREAM]) + b"\n")
        return Outcome(Verdict.ok, "", Usage(cpu_seconds=1, wall_seconds=1))

    cells = [Cell(id=str(at), name=name, source="die" if name in "du" else "", kind="test" if name in "tuv" else "student")
             for at, name in enumerate("ftdguv", 1)]
    verdict, sentence, usage, outputs = run(Notebook(cells=cells), Limits(), start, None)
    assert runs == [["f", "t", "d"], ["f", "g", "u"], ["f", "g", "v"]]
    assert (verdict, sentence, usage.cpu_seconds) == (Verdict.crashed, "cell d: died", 3)
    died = [stopped_output("died")]
    assert outputs == {"1": [STREAM], "2": [STREAM], "3": died, "4": [STREAM], "5": died, "6": [STREAM]}


def test_the_fault_of_the_machine_gives_no_outputs():
    verdict, _, _, outputs = run(Notebook(cells=[Cell(id="1", source="")]), Limits(),
                                 lambda talk, limits: Outcome(Verdict.infra, "no", Usage()), None)
    assert (verdict, outputs) == (Verdict.infra, {})


def test_a_whole_notebook_has_a_cap_and_errors_stay():
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    outputs = capped({str(at): [{**STREAM, "text": "x" * 250_000}, dict(error)] for at in range(60)})
    assert len(json.dumps(outputs)) < 9 * 2**20
    assert all(error in one for one in outputs.values())
