"""What Python programs use: short names of options, one clip, its files, short texts, a bar."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import magnet_cli
from magnet_cli import EditConfig, Job, OutputConfig, Pipeline, PlacesConfig, RuntimeConfig, SamplingConfig
from magnet_cli.audio.codes_file import read_codes, read_source
from magnet_cli.errors import KeywordError, OutputError, UsageError
from magnet_cli.jobs.manifest import Item
from magnet_cli.jobs.record import read_record, recipe
from magnet_cli.jobs.targets import Target
from magnet_cli.jobs.writer import Production
from support.golden import GOLDEN

QUICK = (4, 2, 2, 2)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(str(GOLDEN / "music"), device="cpu", dtype="float32")


def test_keywords_change_only_what_they_name(pipeline: Pipeline) -> None:
    own = pipeline.info.sampling
    assert isinstance(own, SamplingConfig)
    clip = pipeline.generate_one("disco beat", seed=7, steps=QUICK, guidance=5, duration=0.5, lufs=-20, subtype="pcm24")
    assert clip.job.sampling == pipeline.sampling(steps=QUICK, guidance=5)
    assert (clip.job.sampling.temperature, clip.job.sampling.top_p) == (own.temperature, own.top_p)  # type: ignore[union-attr]
    assert clip.job.edit == EditConfig(duration=0.5)
    assert clip.output == OutputConfig(lufs=-20, subtype="pcm24")
    assert (pipeline.info.device, pipeline.info.dtype) == ("cpu", "float32")


def test_keywords_refine_objects(pipeline: Pipeline) -> None:
    sampling = SamplingConfig(steps=QUICK, temperature=1.5)
    edit, output = EditConfig(duration=0.5), OutputConfig(true_peak=-3)
    clip = pipeline.generate_one("x", sampling=sampling, edit=edit, output=output, top_k=9, negative="y", lufs=-20)
    assert clip.job.sampling == SamplingConfig(steps=QUICK, temperature=1.5, top_p=None, top_k=9)
    assert clip.job.edit == EditConfig(duration=0.5, negative="y")
    assert clip.output == OutputConfig(true_peak=-3, lufs=-20, subtype="pcm16")


def test_unknown_keywords_are_refused_at_once(pipeline: Pipeline) -> None:
    with pytest.raises(
        TypeError, match=r"Pipeline\.generate has no keyword argument 'guidence'\. Did you mean guidance"
    ):
        pipeline.generate("x", guidence=3)  # type: ignore[call-arg]
    with pytest.raises(KeywordError, match="Did you mean seed"):
        pipeline.generate_one("x", sed=3)  # type: ignore[call-arg]
    with pytest.raises(KeywordError, match=r"Pipeline\.load has no keyword argument 'devise'\. Did you mean device"):
        Pipeline.load("bundled", devise="cpu")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="temperature must be above 0, not -1"):
        pipeline.generate("x", temperature=-1)


def test_jobs_take_keywords_of_the_output_only(pipeline: Pipeline) -> None:
    job = Job("x", 3, pipeline.sampling(steps=QUICK), EditConfig(duration=0.2))
    (clip,) = pipeline.generate([job], lufs=-30)
    assert clip.output.lufs == -30
    with pytest.raises(UsageError, match="jobs have their own"):
        pipeline.generate([job], guidance=3)


def test_one_clip_is_that_of_an_iterator(pipeline: Pipeline) -> None:
    (clip,) = pipeline.generate("disco beat", seed=7, steps=QUICK)
    assert np.array_equal(clip.codes, pipeline.generate_one("disco beat", seed=7, steps=QUICK).codes)


def test_save_writes_what_the_command_writes(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = pipeline.generate_one("disco beat", seed=7, steps=QUICK)
    clip.save(tmp_path / "python" / "x.wav", codes=True)
    target = Target.beside(tmp_path / "command" / "x.wav", metadata=True, codes=True, folder=None)
    items = [Item(clip.job, target, "key")]
    Production(pipeline, str(GOLDEN / "music"), clip.output).run(items, listener=lambda event: None)
    names = ["x.codes.npz", "x.json", "x.wav"]
    assert sorted(path.name for path in (tmp_path / "python").iterdir()) == names
    assert (tmp_path / "python/x.codes.npz").read_bytes() == (tmp_path / "command/x.codes.npz").read_bytes()
    ours, theirs = (json.loads((tmp_path / each / "x.json").read_text()) for each in ("python", "command"))
    for differing in ("timings", "created"):
        assert ours.pop(differing)
        del theirs[differing]
    assert ours == theirs
    wanted = recipe(read_record(tmp_path / "python" / "x.wav"))
    assert (wanted.job, wanted.model) == (clip.job, str(GOLDEN / "music"))


def test_save_asks_before_it_overwrites(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = pipeline.generate_one("disco beat", seed=7, steps=QUICK)
    clip.save(tmp_path / "x.wav", metadata=False)
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]
    before = (tmp_path / "x.wav").read_bytes()
    with pytest.raises(OutputError, match=r"x\.wav already exists\. Pass overwrite=True to overwrite it"):
        clip.save(tmp_path / "x.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]
    assert (tmp_path / "x.wav").read_bytes() == before
    clip.save(tmp_path / "x.wav", overwrite=True)
    assert read_record(tmp_path / "x.wav")["seed"] == 7


def test_codes_name_their_model(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = pipeline.generate_one("disco beat", seed=7, steps=QUICK)
    clip.save(tmp_path / "x.wav", codes=True)
    assert np.array_equal(read_codes(tmp_path / "x.codes.npz"), clip.codes)
    source = read_source(tmp_path / "x.codes.npz")
    assert source is not None
    assert (source.model, len(source.codec)) == ("music", 64)
    with np.load(tmp_path / "x.codes.npz") as arrays:
        assert str(arrays["model"]) == "music"


def test_texts_are_short(pipeline: Pipeline) -> None:
    clip = pipeline.generate_one("disco beat " * 20, seed=7, steps=QUICK, duration=0.5)
    known = pipeline.continuation(np.ones(1600), 32_000)
    texts = [repr(pipeline), repr(clip), repr(clip.job), repr(known)]
    texts += map(repr, (SamplingConfig(), EditConfig(), OutputConfig(), RuntimeConfig(), PlacesConfig()))
    assert [text for text in texts if len(text) > 500] == []
    assert texts[0] == "<Pipeline music on cpu in float32>"
    assert texts[1].startswith("<Clip 'disco beat ")
    assert texts[1].endswith("seed 7: 0.50 s at 32000 Hz>")
    assert texts[4] == "SamplingConfig()"
    assert repr(SamplingConfig(guidance=3.0)) == "SamplingConfig(guidance=3.0)"
    assert eval(repr(EditConfig(duration=4.0, loop=False))) == EditConfig(duration=4.0)


def test_a_clip_goes_to_another_process_whole(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = pipeline.generate_one("disco beat", seed=7, steps=QUICK)
    content = pickle.dumps(clip)
    assert len(content) < 1e6  # its waveform, and no weights
    copy = pickle.loads(content)
    copy.save(tmp_path / "x.wav")
    assert read_record(tmp_path / "x.wav")["model"] == clip.record["model"]


def test_dir_lists_the_public_names() -> None:
    names = [name for name in dir(magnet_cli) if not name.startswith("_")]
    assert names == sorted(magnet_cli.__all__)
    assert all(getattr(magnet_cli, name) is not None for name in names)


def test_a_bar_only_where_it_is_asked_for(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ["disco beat", "rain"]
    quiet = [clip.codes for clip in pipeline.generate(prompts, seed=7, steps=QUICK)]
    assert capsys.readouterr() == ("", "")
    shown = [clip.codes for clip in pipeline.generate(prompts, seed=7, steps=QUICK, progress=True)]
    out, err = capsys.readouterr()
    assert (out, "100%" in err) == ("", True)
    assert all(np.array_equal(one, other) for one, other in zip(quiet, shown, strict=True))
