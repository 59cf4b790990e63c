/* CRC-32C (Castagnoli, RFC 3720 §12.1): the processor's own instruction where it has one, a table elsewhere. */
#ifndef MTA_CRC32C_H
#define MTA_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t mta_crc_table[256];

static void mta_crc_make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ (0x82F63B78u & (0u - (c & 1)));
        mta_crc_table[i] = c;
    }
}

static uint32_t mta_crc_portable(uint32_t crc, const unsigned char *p, size_t n)
{
    for (; n; n--)
        crc = (crc >> 8) ^ mta_crc_table[(crc ^ *p++) & 0xFF];
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("sse4.2")))
static uint32_t mta_crc_native(uint32_t crc, const unsigned char *p, size_t n)
{
    uint64_t c = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        c = __builtin_ia32_crc32di(c, word);
    }
    for (; n; n--)
        c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
    return (uint32_t)c;
}
#endif

static uint32_t (*mta_crc_chosen)(uint32_t, const unsigned char *, size_t) = mta_crc_portable;

/* Call once before the first use. */
static void mta_crc_setup(void)
{
    mta_crc_make_table();
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2"))
        mta_crc_chosen = mta_crc_native;
#endif
}

/* Continue a checksum; begin with 0. */
static inline uint32_t mta_crc32c(uint32_t crc, const void *data, size_t n)
{
    return ~mta_crc_chosen(~crc, (const unsigned char *)data, n);
}

#endif
