# selftaught on processors: docker build -t selftaught . && docker run --rm -it -v "$PWD:/work" selftaught quickstart
FROM python:3.12-slim
WORKDIR /opt/selftaught
# Plain, torch brings CUDA along, several gigabytes: name PyTorch's own index of builds without it, and it does not.
#   docker build --build-arg TORCH_INDEX=… -t selftaught .
ARG TORCH_INDEX
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN pip install --no-cache-dir -c constraints.txt '.[serve]'
ENV OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["selftaught"]
