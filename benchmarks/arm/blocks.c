// A plugin of qemu's user emulation that writes how often each translated block ran, as lines of
// address, number of instructions and count. Written against qemu's C interface: the header is in
// no Debian package.
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t PluginId;
struct qemu_plugin_tb;
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb*);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
void qemu_plugin_register_vcpu_tb_trans_cb(PluginId, void (*)(PluginId, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb*, void (*)(unsigned, void*),
                                          int flags, void*);
void qemu_plugin_register_atexit_cb(PluginId, void (*)(PluginId, void*), void*);

EXPORT int qemu_plugin_version = 1;

struct Block {
  uint64_t address, instructions, count;
  struct Block* next;
};

static struct Block* blocks;

static void ran(unsigned cpu, void* block) {
  (void)cpu;
  ++((struct Block*)block)->count;
}

static void translated(PluginId id, struct qemu_plugin_tb* code) {
  (void)id;
  struct Block* block = calloc(1, sizeof *block);
  block->address = qemu_plugin_tb_vaddr(code);
  block->instructions = qemu_plugin_tb_n_insns(code);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(code, ran, 0, block);
}

static void ended(PluginId id, void* file) {
  (void)id;
  FILE* out = fopen(file, "w");
  if (!out) return;
  for (const struct Block* block = blocks; block; block = block->next)
    fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address, block->instructions,
            block->count);
  fclose(out);
}

EXPORT int qemu_plugin_install(PluginId id, const void* info, int num_arguments, char** arguments) {
  (void)info;
  if (num_arguments != 1) return 1;
  // "to=PATH"; the text does not outlive this call.
  char* file = malloc(4096);
  if (sscanf(arguments[0], "to=%4095s", file) != 1) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, file);
  return 0;
}
