// Runs a file that sparsejax.save wrote: network FILE INPUT OUTPUT REPEATS; INPUT and OUTPUT are
// files of floats.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "floats.h"
#include "runtime/sparsejax.h"

int main(int, char** arguments) {
  std::ifstream stream(arguments[1], std::ios::binary);
  const std::vector<char> file((std::istreambuf_iterator<char>(stream)), {});
  sparsejax_model* model = nullptr;
  sparsejax_port in, out;
  if (sparsejax_load(file.data(), file.size(), &model) != SPARSEJAX_OK ||
      sparsejax_input(model, 0, &in) != SPARSEJAX_OK ||
      sparsejax_output(model, 0, &out) != SPARSEJAX_OK)
    return std::fprintf(stderr, "%s\n", sparsejax_last_error()), 1;
  std::vector<float> x(in.item_floats), y(out.item_floats);
  if (!read_floats(arguments[2], x.data(), x.size())) return 1;
  const sparsejax_buffer from = {x.data(), x.size()}, to = {y.data(), y.size()};
  for (int i = 0; i < std::atoi(arguments[4]); i++)
    if (sparsejax_run(model, 1, &from, &to) != SPARSEJAX_OK)
      return std::fprintf(stderr, "%s\n", sparsejax_last_error()), 1;
  sparsejax_free(model);
  return !write_floats(arguments[3], y.data(), y.size());
}
