/* A plugin of qemu's: counts the instructions of the emulated program, and says so as it ends. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

/* What is used of qemu's plugin API, version 1: Debian does not package its header. */
struct qemu_plugin_tb;
enum { QEMU_PLUGIN_INLINE_ADD_U64 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    uint64_t id, void (*callback)(uint64_t id, struct qemu_plugin_tb *block));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *block, int operation, void *counter, uint64_t value);
extern void qemu_plugin_register_atexit_cb(
    uint64_t id, void (*callback)(uint64_t id, void *data), void *data);
extern void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;
static uint64_t n_instructions;

static void on_translation(uint64_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(
        block, QEMU_PLUGIN_INLINE_ADD_U64, &n_instructions, qemu_plugin_tb_n_insns(block));
}

static void on_end(uint64_t id, void *data)
{
    (void)id, (void)data;
    char text[64];
    snprintf(text, sizeof text, "instructions: %" PRIu64 "\n", n_instructions);
    qemu_plugin_outs(text);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
    return 0;
}
