# The command `cascade` with the bundled models, as an ordinary user in /work.
#
#   docker build -t cascade .                                  # for CPUs
#   docker build -t cascade:cuda --build-arg TORCH=cu130 .     # for NVIDIA cards
#
# TORCH is a folder of https://download.pytorch.org/whl/, EXTRAS are optional parts of the package.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
RUN pip install --no-cache-dir "build>=1.2"
COPY . .
RUN python -m build --wheel --outdir /wheels

FROM python:${PYTHON}-slim
ARG TORCH=cpu
RUN pip install --no-cache-dir "torch>=2.9" --index-url "https://download.pytorch.org/whl/${TORCH}"
ARG EXTRAS=ui,evaluate,text,heif,jxl
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    set -- /wheels/*.whl && pip install --no-cache-dir "$1[${EXTRAS}]"

# Caches go to a home folder that any user can write to, so that `docker run --user` works.
RUN useradd --create-home cascade && chmod 1777 /home/cascade && mkdir --mode=1777 /work
ENV HOME=/home/cascade
USER cascade
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["cascade"]
CMD ["--help"]
