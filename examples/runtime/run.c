/* Runs a file that sparsejax.save wrote on one item: run FILE INPUT... > OUTPUTS, all of them raw float32. */
#include <sparsejax.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16 }; /* inputs, and outputs */

static void* contents(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) return NULL;
  *size = (size_t)ftell(file);
  rewind(file);
  void* bytes = malloc(*size + 1);
  if (bytes && fread(bytes, 1, *size, file) != *size) return NULL;
  fclose(file);
  return bytes;
}

int main(int argc, char** argv) {
  size_t size = 0;
  sparsejax_model* model;
  sparsejax_port port;
  sparsejax_buffer inputs[MOST] = {{NULL, 0}}, outputs[MOST] = {{NULL, 0}};
  void* file = contents(argc > 1 ? argv[1] : "", &size);
  if (sparsejax_load(file, size, &model)) return fprintf(stderr, "%s\n", sparsejax_last_error()), 1;
  for (int i = 0; i < MOST && i + 2 < argc; i++) {
    inputs[i].data = contents(argv[i + 2], &size);
    inputs[i].floats = size / sizeof(float);
  }
  for (int i = 0; i < MOST && i < sparsejax_num_outputs(model); i++) {
    sparsejax_output(model, i, &port);
    outputs[i].floats = (size_t)port.item_floats;
    outputs[i].data = malloc(sizeof(float) * outputs[i].floats);
  }
  if (sparsejax_run(model, 1, inputs, outputs)) return fprintf(stderr, "%s\n", sparsejax_last_error()), 1;
  for (int i = 0; i < MOST; i++) fwrite(outputs[i].data, sizeof(float), outputs[i].floats, stdout);
  return 0;
}
