# docker build --target cpu -t hub .     docker run --rm hub python mistral/mistral_summarization.py --demo
# docker build --target cuda -t hub .    docker run --rm --gpus all hub python mistral/mistral_summarization.py
FROM python:3.11-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HOME=/home/hub
# a compiler: torch compiles for the processor that it finds
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --home-dir /home/hub hub
WORKDIR /hub
COPY requirements.txt pyproject.toml README.md ./
COPY common common

FROM base AS cpu
RUN pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
    && pip install -r requirements.txt
COPY --chown=hub . .
RUN chown hub /hub
USER 1000
# the embedded models, so that the demos need no network
RUN python -m common checkpoints

FROM base AS cuda
RUN pip install -r requirements.txt
COPY --chown=hub . .
RUN chown hub /hub
USER 1000
RUN python -m common checkpoints
