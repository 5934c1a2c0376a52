"""`magnet encode` and `magnet decode`: the codec alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli.cli.run_jobs import Opened, open_parts
from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.terminal import options
from magnet_cli.terminal.options import FileOptions, Speech
from magnet_cli.terminal.signature import only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from magnet_cli.audio.codes_file import CodesSource
    from magnet_cli.model.codec import Codec


def encode(
    file: Annotated[
        Path, typer.Argument(metavar="AUDIO", help="Audio file of any sample rate and number of channels.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="CODES.npz", help="File of codes to write.")],
    model: options.Model = DEFAULT_MODEL,
    files: Annotated[FileOptions, only("force")],
    runtime: Annotated[RuntimeConfig, only("device")],
    places: PlacesConfig,
    speech: Annotated[Speech, only("quiet", "log_file")],
) -> None:
    """Encode an audio file with a model's codec.

    Writes an .npz file with `codes`, int16 [codebooks, frames], of all codebooks that the model uses, and the name of
    the model.

    Example: magnet encode disco.wav -o disco.npz
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.audio.files import read_audio
        from magnet_cli.disk.atomic import check_writable, write_atomic
        from magnet_cli.hub.locate import resolve

        if output.suffix.lower() != ".npz":
            raise UsageError(f"{output} is not an .npz file", f"Name it {output.name}.npz")
        waveform, rate = read_audio(file)
        check_writable([output], overwrite=files.force)
        opened = open_parts(console, resolve(model, places), {})

        import numpy as np

        from magnet_cli.audio.codes_file import encode_codes
        from magnet_cli.audio.splicing import prepare
        from magnet_cli.pipeline.build import codes_source

        codec = build(opened, runtime)
        codebooks = opened.source.facts.codebooks
        codes = codec.encode(prepare(waveform, rate, codec.config))[0, :codebooks].cpu().numpy().astype(np.int16)
        content = encode_codes(codes, codes_source(opened.source))
        write_atomic(output, lambda target: target.write(content), overwrite=files.force)
        seconds = waveform.shape[1] / rate
        console.message(f"{output.name}: {seconds:.2f} s as {codes.shape[0]} codebooks of {codes.shape[1]} frames")
        console.result(output)


def decode(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="CODES.npz", help="File of codes that magnet encode or magnet generate --save-codes wrote."
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="AUDIO", help="File to write: .wav, .flac, .ogg or .mp3.")
    ],
    model: options.Model = DEFAULT_MODEL,
    loop: Annotated[
        bool, typer.Option("--loop", help="Decode the codes as a loop: their end leads into their beginning.")
    ] = False,
    finish: Annotated[OutputConfig, only("subtype")],
    files: Annotated[FileOptions, only("force")],
    runtime: Annotated[RuntimeConfig, only("device")],
    places: PlacesConfig,
    speech: Annotated[Speech, only("quiet", "log_file")],
) -> None:
    """Decode a file of codes with a model's codec.

    The audio keeps the level that the codec gives it. Codes of another codec are refused.

    Example: magnet decode disco.npz -o disco.wav
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.audio.codes_file import read_codes, read_source
        from magnet_cli.audio.files import write_audio
        from magnet_cli.audio.formats import check_format
        from magnet_cli.disk.atomic import check_writable
        from magnet_cli.hub.locate import resolve

        check_format(output, finish.subtype)
        codes, source = read_codes(file), read_source(file)
        check_writable([output], overwrite=files.force)
        opened = open_parts(console, resolve(model, places), {})

        import torch

        from magnet_cli.pipeline.waveforms import check_room, decode_waveforms

        if source is not None:
            check_source(source, opened, file)
        codec = build(opened, runtime)
        check_codes(codes, codec, file, model)
        if source is None:
            console.message(f"{file.name} does not name its model: the codes are taken for those of {model}")
        check_room(codec, 1, codes.shape[1])
        (waveform,) = decode_waveforms(codec, torch.tensor(codes.astype("int64")).unsqueeze(0), loop=loop)
        write_audio(output, waveform, codec.config.sample_rate, finish.samples, overwrite=files.force)
        console.message(f"{output.name}: {waveform.shape[1] / codec.config.sample_rate:.2f} s")
        console.result(output)


def build(opened: Opened, runtime: RuntimeConfig) -> Codec:
    """Build the codec of a model, on the wanted device."""
    from magnet_cli.checkpoints.parts import build_codec
    from magnet_cli.engines.device import resolve_device

    return build_codec(opened.source.codec, resolve_device(runtime))


def check_source(source: CodesSource, opened: Opened, path: Path) -> None:
    """Raise UsageError for codes of another codec than the model's."""
    from magnet_cli.pipeline.build import codes_source

    own = codes_source(opened.source)
    if source.codec != own.codec:
        what = "another codec" if source.model == own.model else f"the codec of {source.model}"
        raise UsageError(
            f"{path} holds codes of {what}, which {own.model} cannot decode",
            "Name the model that wrote the codes with --model",
        )


def check_codes(codes: NDArray[Any], codec: Codec, path: Path, model: str) -> None:
    """Raise UsageError for codes that are not this codec's."""
    most, values = codec.config.codebooks, codec.config.codes
    if codes.shape[0] > most or codes.min() < 0 or codes.max() >= values:
        raise UsageError(
            f"{path} has {codes.shape[0]} codebooks of codes from {codes.min()} to {codes.max()}, "
            f"but the codec of {model} has {most} of 0 to {values - 1}",
            "Name the model that wrote the codes with --model",
        )
