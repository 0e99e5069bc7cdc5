// Frames for XLA's custom calls; see calls.h.
#include "calls.h"

#include "programs.h"

namespace sparsejax::test {
namespace {

XLA_FFI_Error* error_of(std::string message) {
  living_errors++;
  return new XLA_FFI_Error{std::move(message)};
}

XLA_FFI_Error* create(XLA_FFI_Error_Create_Args* args) { return error_of(args->message); }
void message(XLA_FFI_Error_GetMessage_Args* args) { args->message = args->error->message.c_str(); }
void destroy(XLA_FFI_Error_Destroy_Args* args) {
  living_errors--;
  delete args->error;
}
void (*deleter)(void*) = nullptr;
XLA_FFI_Error* register_type(XLA_FFI_Type_Register_Args* args) {
  if (!registration_error.empty()) return error_of(registration_error);
  deleter = args->type_info->deleter;
  args->type_id->type_id = 1;
  return nullptr;
}
XLA_FFI_Error* set_state(XLA_FFI_State_Set_Args* args) {
  args->ctx->state = args->state;
  return nullptr;
}
XLA_FFI_Error* get_state(XLA_FFI_State_Get_Args* args) {
  args->state = args->ctx->state;
  return args->state ? nullptr : error_of("no state");
}
XLA_FFI_Error* schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
  if (!args->ctx->has_pool) return error_of("no pool");
  args->ctx->threads.pool(2).schedule([task = args->task, data = args->data] { task(data); });
  return nullptr;
}
XLA_FFI_Error* num_threads(XLA_FFI_ThreadPool_NumThreads_Args* args) {
  *args->num_threads = args->ctx->num_threads;
  return nullptr;
}

const XLA_FFI_Api& api() {
  static const XLA_FFI_Api api = [] {
    XLA_FFI_Api a = {};
    a.struct_size = XLA_FFI_Api_STRUCT_SIZE;
    a.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR,
                     XLA_FFI_API_MINOR};
    a.XLA_FFI_Error_Create = create;
    a.XLA_FFI_Error_GetMessage = message;
    a.XLA_FFI_Error_Destroy = destroy;
    a.XLA_FFI_Type_Register = register_type;
    a.XLA_FFI_State_Set = set_state;
    a.XLA_FFI_State_Get = get_state;
    a.XLA_FFI_ThreadPool_Schedule = schedule;
    a.XLA_FFI_ThreadPool_NumThreads = num_threads;
    return a;
  }();
  return api;
}

// The buffers of operands or results, and pointers to them.
struct Buffers {
  explicit Buffers(std::vector<Tensor>& tensors) : buffers(tensors.size()) {
    for (size_t i = 0; i < tensors.size(); i++) {
      Tensor& t = tensors[i];
      char* data = reinterpret_cast<char*>(t.elsewhere ? t.elsewhere : t.words.data());
      buffers[i] = {XLA_FFI_Buffer_STRUCT_SIZE,          nullptr,      t.dtype, data + t.shift,
                    static_cast<int64_t>(t.dims.size()), t.dims.data()};
      pointers.push_back(&buffers[i]);
    }
    arg_types.assign(tensors.size(), XLA_FFI_ArgType_BUFFER);
    ret_types.assign(tensors.size(), XLA_FFI_RetType_BUFFER);
  }
  std::vector<XLA_FFI_Buffer> buffers;
  std::vector<void*> pointers;
  std::vector<XLA_FFI_ArgType> arg_types;
  std::vector<XLA_FFI_RetType> ret_types;
};

struct Attributes {
  explicit Attributes(std::map<std::string, Attribute>& attributes) {
    scalars.reserve(attributes.size());
    arrays.reserve(attributes.size());
    spans.reserve(2 * attributes.size());
    for (auto& [name, a] : attributes) {  // sorted by name, as XLA has them
      spans.push_back({name.data(), name.size()});
      names.push_back(&spans.back());
      if (a.kind == Attribute::kText) {
        spans.push_back({a.text.data(), a.text.size()});
        add(XLA_FFI_AttrType_STRING, &spans.back());
      } else if (a.kind == Attribute::kNumbers) {
        arrays.push_back({XLA_FFI_DataType_S64, a.numbers.size(), a.numbers.data()});
        add(XLA_FFI_AttrType_ARRAY, &arrays.back());
      } else {  // the first byte of a little-endian number is its truth
        const bool flag = a.kind == Attribute::kFlag;
        scalars.push_back({flag ? XLA_FFI_DataType_PRED : XLA_FFI_DataType_S64, a.numbers.data()});
        add(XLA_FFI_AttrType_SCALAR, &scalars.back());
      }
    }
  }
  void add(XLA_FFI_AttrType type, void* attribute) {
    types.push_back(type);
    pointers.push_back(attribute);
  }
  std::vector<XLA_FFI_Scalar> scalars;
  std::vector<XLA_FFI_Array> arrays;
  std::vector<XLA_FFI_ByteSpan> spans;
  std::vector<XLA_FFI_ByteSpan*> names;
  std::vector<XLA_FFI_AttrType> types;
  std::vector<void*> pointers;
};

}  // namespace

void delete_state(void* state) { deleter(state); }

int64_t Tensor::elements() const {
  int64_t n = 1;
  for (int64_t size : dims) n *= size;
  return n;
}

Tensor Tensor::slice(int64_t i, int64_t slices) const {
  const auto size = static_cast<int64_t>(words.size()) / slices;
  return {dtype,
          {dims.begin() + 1, dims.end()},
          {words.begin() + i * size, words.begin() + (i + 1) * size}};
}

Tensor float_tensor(Dims dims) {
  Tensor tensor = {XLA_FFI_DataType_F32, std::move(dims), {}};
  tensor.words.resize(tensor.elements());
  const Floats floats = random_floats(tensor.elements());
  if (!tensor.words.empty())
    std::memcpy(tensor.words.data(), floats.data(), tensor.words.size() * sizeof(float));
  return tensor;
}

Tensor int_tensor(Dims dims, const std::vector<int32_t>& values) {
  Tensor tensor = {XLA_FFI_DataType_S32, std::move(dims), {}};
  for (int64_t i = 0; i < tensor.elements(); i++)
    tensor.words.push_back(static_cast<uint32_t>(values[i % values.size()]));
  return tensor;
}

std::string Call::run(XLA_FFI_ExecutionStage stage, void** state) {
  XLA_FFI_ExecutionContext context;
  context.num_threads = num_threads;
  context.has_pool = has_pool;
  if (state) context.state = *state;
  Buffers args(operands), rets(results);
  Attributes attrs(attributes);
  const auto n = [](const auto& list) { return static_cast<int64_t>(list.size()); };
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api();
  frame.ctx = &context;
  frame.stage = stage;
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, n(operands), args.arg_types.data(),
                args.pointers.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, n(results), rets.ret_types.data(),
                rets.pointers.data()};
  frame.attrs = {
      XLA_FFI_Attrs_STRUCT_SIZE, nullptr, n(attrs.names), attrs.types.data(), attrs.names.data(),
      attrs.pointers.data()};
  const std::unique_ptr<XLA_FFI_Error> error(handler(&frame));
  context.threads.join();
  if (state) *state = context.state;
  if (error) living_errors--;
  return error ? error->message : "";
}

std::vector<Call> valid_calls(const Dims& leading) {
  const auto dims = [&](Dims own) {
    own.insert(own.begin(), leading.begin(), leading.end());
    return own;
  };
  const auto floats = [&](Dims own) { return float_tensor(dims(std::move(own))); };
  const auto ints = [&](const std::vector<int32_t>& values) {
    return int_tensor(dims({static_cast<int64_t>(values.size())}), values);
  };
  const auto flag = [](bool value) { return Attribute{{value}, Attribute::kFlag}; };
  const auto sizes = [](int64_t rows, int64_t cols) {
    return std::map<std::string, Attribute>{{"rows", {{rows}}}, {"cols", {{cols}}}};
  };
  const auto with = [](std::map<std::string, Attribute> all,
                       std::map<std::string, Attribute> more) {
    all.insert(more.begin(), more.end());
    return all;
  };
  const auto pair = [](int64_t y, int64_t x) { return Attribute{{y, x}, Attribute::kNumbers}; };
  std::vector<Call> calls;
  for (bool last : {false, true}) {
    const auto image = [&](int64_t channels) {
      return last ? floats({7, channels}) : floats({2, channels, 7});
    };
    const auto map = [&](int64_t height, int64_t width) {
      return last ? floats({2, height, width, 3}) : floats({2, 3, height, width});
    };
    const Tensor indices = ints({0, 2, 1}), starts = ints({0, 2, 3});  // of 4x3 in 2x1 blocks
    const std::vector<Tensor> runs = {ints({0, 2, 1, 3}), ints({0, 2, 4}), ints({0, 2, 1}),
                                      ints({0, 2, 3}), ints({0, 4, 6})};
    const auto flags = std::map<std::string, Attribute>{
        {"activation", {{1}}}, {"channels_last", flag(last)}, {"transpose", flag(false)}};
    const std::map<std::string, Attribute> layout = {{"channels_last", flag(last)}};
    const auto window =
        with(layout, {{"strides", pair(1, 2)}, {"dilation", pair(2, 1)}, {"pads", pair(2, 1)}});
    calls.push_back({sparsejax_spmm,
                     {floats({3, 2}), indices, starts, floats({4}), image(3)},
                     {image(4)},
                     with(with(sizes(4, 3), flags), {{"block", {{2}}}}),
                     "spmm"});
    calls.push_back({sparsejax_spmm_grad_values,
                     {indices, starts, image(3), image(4)},
                     {floats({3, 2}), floats({4})},
                     with(with(sizes(4, 3), layout), {{"block", {{2}}}}),
                     "spmm_grad_values"});
    std::vector<Tensor> operands = {floats({6})};
    operands.insert(operands.end(), runs.begin(), runs.end());
    operands.insert(operands.end(), {floats({4}), image(3)});
    calls.push_back({sparsejax_bcr, operands, {image(4)}, with(sizes(4, 3), flags), "bcr"});
    operands = runs;
    operands.insert(operands.end(), {image(3), image(4)});
    calls.push_back({sparsejax_bcr_grad_values,
                     operands,
                     {floats({6})},
                     with(sizes(4, 3), layout),
                     "bcr_grad_values"});
    calls.push_back({sparsejax_depthwise,
                     {floats({3, 2, 3}), floats({3}), map(6, 9)},
                     {map(6, 5)},
                     with(window, {{"activation", {{2}}}}),
                     "depthwise"});
    calls.push_back({sparsejax_depthwise_grad_x,
                     {floats({3, 2, 3}), map(6, 5)},
                     {map(6, 9)},
                     window,
                     "depthwise_grad_x"});
    calls.push_back({sparsejax_depthwise_grad_kernel,
                     {map(6, 9), map(6, 5)},
                     {floats({3, 2, 3}), floats({3})},
                     window,
                     "depthwise_grad_kernel"});
  }
  return calls;
}

void call_by_bytes(const uint8_t* bytes, size_t size) {
  Choices choices(bytes, size);
  const Dims leadings[] = {{}, {2}, {1}, {2, 3}, {0}};
  std::vector<Call> calls = valid_calls(leadings[choices.below(5)]);
  Call& call = calls[choices.below(static_cast<int64_t>(calls.size()))];
  call.num_threads = choices.of({1, 1, 3});
  for (int64_t n = choices.below(5); n > 0; n--) {
    const bool results = choices.percent(40);
    std::vector<Tensor>& tensors = results ? call.results : call.operands;
    Tensor& tensor = tensors[choices.below(static_cast<int64_t>(tensors.size()))];
    const int64_t kind = choices.below(4);
    if (kind == 0 && !tensor.dims.empty()) {
      tensor.dims[choices.below(static_cast<int64_t>(tensor.dims.size()))] = choices.below(10);
    } else if (kind == 1) {
      if (choices.percent(50) || tensor.dims.empty())
        tensor.dims.insert(tensor.dims.begin(), choices.below(4));
      else
        tensor.dims.erase(tensor.dims.begin());
    } else if (kind == 2 && !tensor.words.empty()) {
      tensor.words[choices.below(static_cast<int64_t>(tensor.words.size()))] =
          static_cast<uint32_t>(choices.of({0, 1, 2, 3, 4, 7, -1, INT32_MAX, INT32_MIN}));
    } else if (kind == 3) {
      auto attribute = std::next(call.attributes.begin(),
                                 choices.below(static_cast<int64_t>(call.attributes.size())));
      std::vector<int64_t>& numbers = attribute->second.numbers;
      if (attribute->second.kind == Attribute::kFlag) {
        numbers[0] ^= 1;
        continue;
      }
      numbers[choices.below(static_cast<int64_t>(numbers.size()))] =
          choices.of({0, 1, 2, 3, 4, 5, 8, -1, -3, 31, 33, int64_t{1} << 31, INT32_MAX, kHuge,
                      -kHuge, choices.below(100)});
    }
    fit(tensor);
  }
  call.run();
}

}  // namespace sparsejax::test
