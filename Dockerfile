# Both stages use one release, because a TensorRT engine runs only on the version that built it.
FROM nvcr.io/nvidia/tritonserver:26.04-py3 AS triton
ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/stepwise
COPY constraints.txt LICENSE ./
COPY deploy/ deploy/
COPY client/ client/
COPY serving/ serving/

FROM triton AS export
COPY export/ export/
RUN deploy/install.sh export /opt/venv && deploy/install_tensorrt.sh /opt/venv
# For `--user`: a user ID without an account has no home and no name.
ENV HOME=/tmp USER=stepwise
USER 1000:1000
# NVIDIA's entry point makes the image's CUDA work on older drivers.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "stepwise", "export"]

FROM triton AS serve
RUN deploy/install.sh serve /opt/venv
COPY model_repository/ model_repository/
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=6s --start-period=10m \
    CMD ["python3", "deploy/healthcheck.py"]
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "stepwise", "serve", "--host", "0.0.0.0"]
