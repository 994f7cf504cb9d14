/* Reading command lines and answering them: what p11bench.c offers to scale.c. */
#ifndef KEYFOB_BENCH_COMMANDS_H
#define KEYFOB_BENCH_COMMANDS_H

#include "figures.h"

int refuse(const char *what, CK_RV rv);                                      /* answers with an error; always 0 */
char *word(char **rest);                                                     /* the next word, NULL at the end */
int number(char **rest, uint64_t *value);                                    /* the next word as a number */
int template_of(char **rest, CK_ATTRIBUTE *template, CK_ULONG *count);       /* up to "/" or the end */
int slot_of_label(const CK_BYTE *label, size_t length, CK_ULONG *slot);
long bytes_of(const char *text, CK_BYTE *out, size_t limit);                 /* hexadecimal; -1: bad or too long */

/* Obeys one of the commands of scale.c: 0 when it knows no such command. `session` is 0 while none is open. */
int scale_command(const CK_FUNCTION_LIST *p11, CK_HANDLE *session, const char *command, char **rest);

#endif
