/* RSA's modular powers in constant time: rsa_power.c has the arithmetic, rsa_module.c makes a Python module of it. */
#ifndef KEYFOB_RSA_POWER_H
#define KEYFOB_RSA_POWER_H

#include <stddef.h>

/* A big-endian, unsigned number. */
typedef struct {
    const unsigned char *bytes;
    size_t length;
} Number;

/*
 * What a private operation needs. No number begins with a zero byte but the exponents and the coefficient, which are as
 * long as their prime. `random` draws the blinding: at least 16 bytes more than the modulus has.
 */
typedef struct {
    Number modulus, public_exponent, prime_1, prime_2, exponent_1, exponent_2, coefficient, random;
} PrivateKey;

enum { POWER_OK, POWER_NO_MEMORY, POWER_WRONG };

/*
 * value ** e mod n, as long as the modulus; the value is less than the modulus, which is odd (else POWER_WRONG).
 * Constant in time for all values of one key.
 */
int public_power(unsigned char *result, const Number *value, const Number *modulus, const Number *exponent);

/*
 * value ** d mod n by the Chinese remainder theorem, as long as the modulus. POWER_WRONG, and no result, where the
 * result raised to e is not the value: a fault, or numbers that are not those of one key.
 */
int private_power(unsigned char *result, const Number *value, const PrivateKey *key);

#endif
