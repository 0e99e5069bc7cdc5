// Runs a file that MNN's converter wrote, on one thread: mnn FILE INPUT OUTPUT REPEATS, as
// network.cc. A run copies the input to MNN's tensor and the output from it.
#include <MNN/Interpreter.hpp>
#include <cstdlib>
#include <memory>

#include "floats.h"

int main(int, char** arguments) {
  const std::unique_ptr<MNN::Interpreter> net(MNN::Interpreter::createFromFile(arguments[1]));
  if (!net) return 1;
  MNN::BackendConfig backend;
  backend.precision = MNN::BackendConfig::Precision_High;
  MNN::ScheduleConfig config;
  config.type = MNN_FORWARD_CPU;
  config.numThread = 1;
  config.backendConfig = &backend;
  MNN::Session* session = net->createSession(config);
  if (!session) return 1;
  MNN::Tensor* in = net->getSessionInput(session, nullptr);
  MNN::Tensor* out = net->getSessionOutput(session, nullptr);
  MNN::Tensor x(in, MNN::Tensor::CAFFE), y(out, MNN::Tensor::CAFFE);
  if (!read_floats(arguments[2], x.host<float>(), x.elementSize())) return 1;
  for (int i = 0; i < std::atoi(arguments[4]); i++) {
    in->copyFromHostTensor(&x);
    if (net->runSession(session) != MNN::NO_ERROR) return 1;
    out->copyToHostTensor(&y);
  }
  return !write_floats(arguments[3], y.host<float>(), y.elementSize());
}
