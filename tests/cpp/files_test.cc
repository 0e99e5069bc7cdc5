// Files: JSON, the container, weights, and programs that come back as they were.
#include "files.h"

#include "files/fields.h"
#include "files/weights.h"

namespace sparsejax::test {
namespace {

std::string parsed(const std::string& text) {
  JsonDocument document;
  return document.parse(text);
}

void test_json() {
  JsonDocument document;
  const std::string wrong = document.parse(
      R"( {"a": [1, -20, {"b": null}], "c": "x\"\\\n\u00e9\ud83d\ude00", "d": {}, "e": []} )");
  expect(wrong.empty(), "JSON is read: " + wrong);
  const Json root = document.root();
  int64_t sum = 0;
  root.member("a").for_items([&](Json item) { sum += item.number(); });
  expect(sum == -19 && root.member("a").size() == 3, "numbers and sizes");
  expect(root.member("c").text() == "x\"\\\n\u00e9\U0001F600", "escapes are resolved");
  expect(root.member("d").size() == 0 && root.member("e").size() == 0, "empty ones");
  expect(root.member("z").kind() == JsonKind::kMissing, "what is missing says so");
  expect(root.member("z").member("y").text().empty(), "and so do its parts");
  for (const char* bad :
       {"", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "1.5", "1e3", "-", "tru", "\"\\x\"",
        "\"\\u12g4\"", "\"a", "[1] 2", "1234567890123456789", "\"\n\""})
    expect(!parsed(bad).empty(), std::string("no JSON: ") + bad);
  expect(parsed(std::string(32, '[') + std::string(32, ']')).empty(), "nested 32 times");
  expect(!parsed(std::string(33, '[') + std::string(33, ']')).empty(), "nested 33 times");
}

std::vector<uint8_t> container(const std::string& header, size_t data) {
  std::vector<uint8_t> file(8);
  for (int i = 0; i < 8; i++) file[i] = static_cast<uint8_t>(header.size() >> (8 * i));
  file.insert(file.end(), header.begin(), header.end());
  file.resize(file.size() + data);
  return file;
}

std::string tensor(const char* name, int64_t elements, int64_t begin, int64_t end,
                   const char* dtype = "F32") {
  return std::string("\"") + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" +
         std::to_string(elements) + R"(],"data_offsets":[)" + std::to_string(begin) + "," +
         std::to_string(end) + "]}";
}

void test_container() {
  const auto said = [](const std::string& header, size_t data) {
    Problem problem("file");
    Container read;
    const std::vector<uint8_t> file = container(header, data);
    read_container(file.data(), static_cast<int64_t>(file.size()), read, problem);
    return problem.text();
  };
  const std::string a = tensor("a", 2, 0, 8), b = tensor("b", 1, 8, 12);
  expect(said("{" + a + "," + b + "}", 12).empty(), "two tensors");
  expect(said("{" + b + "," + a + "}", 12).empty(), "in any order");
  expect(said("{" + tensor("a", 0, 0, 0) + "}", 0).empty(), "an empty tensor");
  const std::string bad[] = {"{" + a + "}",
                             "{" + a + "," + tensor("b", 2, 4, 12) + "}",
                             "{" + a + "," + a + "," + b + "}",
                             "{" + a + "," + tensor("b", 1, 8, 16) + "}",
                             "{" + a + "," + tensor("b", 1, 12, 8) + "}",
                             "{" + a + "," + tensor("b", -1, 8, 12) + "}",
                             "{" + tensor("a", int64_t{1} << 62, 0, 12) + "}",
                             "{" + tensor("a", 12, 0, 12, "I8") + "}",
                             "[]",
                             "{\"a\":{}}"};
  for (const std::string& header : bad) expect(!said(header, 12).empty(), "refused: " + header);
}

// Of all numbers that float16 has, those that float32 says they are.
void test_float16() {
  std::vector<uint8_t> bytes;
  for (int bits = 0; bits < 65536; bits++) {
    bytes.push_back(bits & 255);
    bytes.push_back(bits >> 8);
  }
  const Tensor all = {DType::kF16, bytes.data(), 65536, 131072};
  int wrong = 0;
  for (int bits = 0; bits < 65536; bits++) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double exact =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) exact = fraction ? NAN : INFINITY;
    if (bits >> 15) exact = -exact;
    const float got = float_at(all, bits);
    wrong += std::isnan(exact) ? !std::isnan(got) : got != exact;
    wrong += std::signbit(got) != (bits >> 15);
  }
  expect(wrong == 0, "float16 is read exactly");
}

void test_gaps() {
  const std::vector<uint8_t> codes = {1, 0, 255, 0, 44};  // cells 1, 2, 258, then 44 behind
  const std::vector<float> values = {1, 2, 3};
  const Tensor stored = {DType::kF32, reinterpret_cast<const uint8_t*>(values.data()), 3, 12};
  const Tensor where = {DType::kU8, codes.data(), 5, 5};
  const StoredWeights weights = {Form::kGaps, 1, &stored, &where};
  std::vector<float> out(303);
  Problem problem("file");
  expect(check_weights(weights, 1, 303, problem), "the shape is possible");
  expect(decode_weights(weights, 1, 303, out.data(), problem), "gaps are read");
  expect(out[1] == 1 && out[2] == 2 && out[258] == 3 && out[259] == 0, "each at its place");
  for (int64_t cols : {259, 302, 304}) {
    Problem other("file");
    std::vector<float> room(cols);
    expect(!decode_weights(weights, 1, cols, room.data(), other), "too few or too many cells");
  }
  Problem small("file");
  expect(!check_weights(weights, 100, 303, small), "17 bytes are no 30,300 weights");
}

void test_files(const Kernels& kernels) {
  for (int64_t trial = 0; trial < 150; trial++) {
    const std::vector<uint8_t> bytes = random_bytes(500);
    const std::string problem = file_problem(kernels, bytes.data(), bytes.size());
    expect(problem.empty(), std::string(kernels.isa) + " file: " + problem);
  }
}

// What a sequence says is checked: a valid one runs, and one with other numbers does no harm.
void test_sequences() {
  for (int64_t trial = 0; trial < 100; trial++) {
    const std::vector<uint8_t> bytes = random_bytes(200);
    Choices choices(bytes.data(), bytes.size());
    std::vector<uint8_t> file = looped_file(choices);
    sparsejax_model* model = nullptr;
    expect(sparsejax_load(file.data(), file.size(), &model) == SPARSEJAX_OK,
           std::string("a sequence is loaded: ") + sparsejax_last_error());
    if (model) run_model(model);
    sparsejax_free(model);
    damage(choices, file);
    run_any_file(file.data(), file.size());
  }
}

const Test sequences(test_sequences);
const Test json(test_json), containers(test_container), float16(test_float16), gaps(test_gaps);
const Test files(test_files);

}  // namespace
}  // namespace sparsejax::test
