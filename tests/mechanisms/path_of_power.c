/* Prints a digest of the way that a private operation takes through rsa_power.c, compiled to call __sanitizer_cov_trace_pc
 * at each branch. The arguments are the value, the seven numbers of the key and the blinding, in hex. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rsa_power.h"

static uint64_t path = 1469598103934665603U, steps;
static const char *base;

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    path = (path ^ (uint64_t)((const char *)__builtin_return_address(0) - base)) * 1099511628211U;
    steps++;
}

static Number read_hex(const char *text)
{
    size_t length = strlen(text) / 2, i;
    unsigned char *bytes = malloc(length + 1);

    for (i = 0; i < length; i++) {
        unsigned int byte;

        sscanf(text + 2 * i, "%2x", &byte);
        bytes[i] = (unsigned char)byte;
    }
    return (Number){bytes, length};
}

int main(int count, char **arguments)
{
    Number part[9];
    int i, answer;

    if (count != 10)
        return 2;
    for (i = 0; i < 9; i++)
        part[i] = read_hex(arguments[i + 1]);
    PrivateKey key = {part[1], part[2], part[3], part[4], part[5], part[6], part[7], part[8]};
    unsigned char *result = malloc(part[1].length);

    base = (const char *)(uintptr_t)&private_power;
    path = 1469598103934665603U;
    answer = private_power(result, &part[0], &key);
    printf("%d %llu %llx\n", answer, (unsigned long long)steps, (unsigned long long)path);
    return answer;
}
