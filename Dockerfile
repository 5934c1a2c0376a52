# magnet in a container: docs/installing.md says how to build and run it.
#
#   docker build -t magnet .                            for CPUs
#   docker build -t magnet --build-arg VARIANT=cu130 .  for NVIDIA GPUs
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# Which builds of PyTorch: a folder of its package index. Those for CUDA bring the CUDA libraries with them.
ARG VARIANT=cpu
# As in pyproject.toml.
ARG TORCH=2.11.*
# Before the package is copied: a change of its code then needs no new download of PyTorch.
RUN python -m venv /opt/magnet && /opt/magnet/bin/pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/${VARIANT}" \
    "torch==${TORCH}" "torchaudio==${TORCH}"
COPY . /source
RUN /opt/magnet/bin/pip install --no-cache-dir /source

FROM python:${PYTHON}-slim
COPY --from=build /opt/magnet /opt/magnet
# Everybody may write to both folders, so that the container can run as any user: --user "$(id -u):$(id -g)".
RUN useradd --create-home --uid 1000 magnet && install --directory --mode 1777 /models /clips
ENV PATH=/opt/magnet/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/huggingface \
    MAGNET_MODEL_DIR=/models/magnet
VOLUME /models
WORKDIR /clips
USER 1000
ENTRYPOINT ["magnet"]
CMD ["--help"]
