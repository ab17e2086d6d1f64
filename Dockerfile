# docker build -t ffcv_imagenet .
# On NVIDIA's image, with its own torch: docker build --build-arg BASE=nvcr.io/nvidia/pytorch:TAG --build-arg TORCH=keep ...
ARG BASE=debian:trixie
FROM ${BASE}
ARG TORCH=
COPY . /opt/ffcv_imagenet
WORKDIR /opt/ffcv_imagenet
RUN apt-get update && apt-get install -y --no-install-recommends python3 git make ca-certificates
RUN make setup
ENV PATH=/opt/ffcv_imagenet/.venv/bin:$PATH
