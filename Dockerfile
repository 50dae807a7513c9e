# Grindstone with ONNX Runtime:
#
#   docker build -t grindstone .                                     CPU, x86-64 and arm64
#   docker build -t grindstone:cuda --build-arg RUNTIME=cuda .       CUDA 13 and cuDNN 9 inside, x86-64; the host brings the driver
#
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:5050:5050 \
#     -v grindstone:/var/lib/grindstone -v ./cifar10:/data:ro grindstone --data /data
#
# The server has neither TLS nor logins of its own: publish its port on loopback or behind a proxy that has both.
ARG BUILD_IMAGE=docker.io/library/golang:1.26-bookworm
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN python3 -m pip --version || (apt-get update && apt-get install -y --no-install-recommends python3-pip)
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
ARG RUNTIME=cpu
COPY scripts/runtime.sh scripts/cuda.sh scripts/
RUN case "$RUNTIME" in \
      cpu)  scripts/runtime.sh --pip /out/lib ;; \
      cuda) scripts/runtime.sh --pip --cuda /out/lib && scripts/cuda.sh /out/lib ;; \
      *)    echo "RUNTIME is $RUNTIME: use cpu or cuda" >&2; exit 1 ;; \
    esac
COPY . .
ARG VERSION=unknown
RUN make build VERSION="$VERSION" && install -D bin/grindstone /out/bin/grindstone \
    && install -D -m 0644 LICENSE /out/share/doc/grindstone/LICENSE \
    && mv /out/lib/LICENSE /out/share/doc/grindstone/LICENSE.onnxruntime \
    && mv /out/lib/ThirdPartyNotices.txt /out/share/doc/grindstone/ThirdPartyNotices.onnxruntime \
    && mkdir /state

FROM ${BASE_IMAGE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Grindstone" \
      org.opencontainers.image.description="Quarantines, sanitizes, signs and releases ONNX models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/ /usr/local/
# Everything that is written goes here: the rest of the file system may be read-only.
COPY --from=build --chown=65532:65532 /state /var/lib/grindstone
ENV HOME=/var/lib/grindstone \
    LD_LIBRARY_PATH=/usr/local/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
WORKDIR /var/lib/grindstone
VOLUME /var/lib/grindstone
EXPOSE 5050
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5050 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["grindstone", "serve", "--listen", "0.0.0.0:5050", "--dir", "/var/lib/grindstone"]
