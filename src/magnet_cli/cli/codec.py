"""`magnet encode` and `magnet decode`: the codec alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import Console
from magnet_cli.cli.options import chosen
from magnet_cli.cli.run_jobs import Opened, open_parts
from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.options.output import OutputConfig, Subtype
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from magnet_cli.model.codec import Codec

Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")]


def encode(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="AUDIO", help="An audio file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="CODES.npz", help="Where the codes go.")],
    model: options.Model = DEFAULT_MODEL,
    force: Force = False,
    device: options.Device = RuntimeConfig.device,
    model_dir: options.ModelDir = None,
    cache_dir: options.CacheDir = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode audio with a model's codec: an .npz file with `codes`, int16 [K, T].

    Any sample rate and number of channels will do. All codebooks that the model uses are kept.
    """
    console = Console(quiet=quiet)
    with console.reporting():
        from magnet_cli.audio.atomic import check_writable, write_atomic
        from magnet_cli.audio.files import read_audio

        if output.suffix.lower() != ".npz":
            raise UsageError(f"{output} is no .npz file", f"Name it {output.name}.npz")
        runtime = chosen(RuntimeConfig, context)
        waveform, rate = read_audio(file)
        check_writable([output], overwrite=force)
        opened = open_parts(console, model, {}, chosen(PlacesConfig, context))

        import numpy as np

        from magnet_cli.audio.splicing import prepare
        from magnet_cli.pipeline.build import vocabulary

        codec = build(opened, runtime)
        codebooks = vocabulary(opened.source).codebooks
        codes = codec.encode(prepare(waveform, rate, codec.config))[0, :codebooks].cpu().numpy().astype(np.int16)
        archive = io.BytesIO()
        np.savez(archive, codes=codes)
        write_atomic(output, lambda target: target.write(archive.getvalue()), overwrite=force)
        seconds = waveform.shape[1] / rate
        console.message(f"{output.name}: {seconds:.2f} s as {codes.shape[0]} codebooks of {codes.shape[1]} frames")
        console.result(str(output))


def decode(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="CODES.npz", help="What encode or --save-codes has written.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="AUDIO", help="Where the audio goes.")],
    model: options.Model = DEFAULT_MODEL,
    loop: Annotated[bool, typer.Option("--loop", help="The end of the codes meets their beginning.")] = False,
    subtype: options.SubtypeName = OutputConfig.subtype,
    force: Force = False,
    device: options.Device = RuntimeConfig.device,
    model_dir: options.ModelDir = None,
    cache_dir: options.CacheDir = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Decode the codes in an .npz file with a model's codec, at the level the codec gives."""
    console = Console(quiet=quiet)
    with console.reporting():
        from magnet_cli.audio.atomic import check_writable
        from magnet_cli.audio.files import write_audio
        from magnet_cli.audio.formats import check_format

        kept: Subtype = chosen(OutputConfig, context).subtype
        check_format(output, kept)
        codes, runtime = read_codes(file), chosen(RuntimeConfig, context)
        check_writable([output], overwrite=force)
        opened = open_parts(console, model, {}, chosen(PlacesConfig, context))

        import torch

        from magnet_cli.pipeline.waveforms import check_room, decode_waveforms

        codec = build(opened, runtime)
        check_codes(codes, codec, file, model)
        check_room(codec, 1, codes.shape[1])
        (waveform,) = decode_waveforms(codec, torch.tensor(codes.astype("int64")).unsqueeze(0), loop=loop)
        write_audio(output, waveform, codec.config.sample_rate, kept, overwrite=force)
        console.message(f"{output.name}: {waveform.shape[1] / codec.config.sample_rate:.2f} s")
        console.result(str(output))


def build(opened: Opened, runtime: RuntimeConfig) -> Codec:
    """A model's codec alone, on the device that is asked for."""
    from magnet_cli.checkpoints.parts import build_codec
    from magnet_cli.engines.device import resolve_device
    from magnet_cli.pipeline.build import codec_of

    return build_codec(codec_of(opened.source), resolve_device(runtime))


def read_codes(path: Path) -> NDArray[Any]:
    """The codes [K, T] in an .npz file; UsageError for anything else."""
    import zipfile
    import zlib

    import numpy as np

    damaged = (zipfile.BadZipFile, zlib.error)
    hint = "Give a file that magnet encode or --save-codes has written"
    try:
        with np.load(path, allow_pickle=False) as archive:
            codes = archive["codes"]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, *damaged) as error:
        raise UsageError(f"{path} holds no codes", hint) from error
    if (
        not isinstance(codes, np.ndarray)
        or codes.ndim != 2
        or not codes.size
        or not np.issubdtype(codes.dtype, np.integer)
    ):
        raise UsageError(f"the codes in {path} are not whole numbers [K, T]", hint)
    return codes


def check_codes(codes: NDArray[Any], codec: Codec, path: Path, model: str) -> None:
    """Raise UsageError for codes that are not this codec's."""
    most, values = codec.config.codebooks, codec.config.codes
    if codes.shape[0] > most or codes.min() < 0 or codes.max() >= values:
        raise UsageError(
            f"{path} has {codes.shape[0]} codebooks of codes from {codes.min()} to {codes.max()}, "
            f"but the codec of {model} has {most} of 0 to {values - 1}",
            "Give --model the model whose codes they are",
        )
