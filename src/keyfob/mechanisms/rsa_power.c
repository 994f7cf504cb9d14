/*
 * RSA's modular powers in constant time (Montgomery multiplication, fixed windows, Chinese remainder theorem).
 *
 * Why it is here and not taken from a library: the one that keyfob is built on has no RSA without padding
 * (pyca/cryptography issue 13443), and those that have it change what belongs to the host (gmpy2: its SIGFPE handler) or
 * offer it as a private function. It is small because it does one thing.
 *
 * What an observer of time, caches or faults could use, and what is done about it:
 *
 *   branches and addresses   follow from the numbers' sizes and the public exponent alone. Sums are corrected under
 *                            masks; a table is read whole each time, the wanted entry under a mask.
 *   chosen inputs            never meet the key: the base is blinded. With a fresh random r
 *                                value ** d  =  (value * r) ** d  *  r ** (p-1-d)      (mod p)
 *                            so that no inverse is needed and each step of the power is masked by a power of r. Both
 *                            powers share their squarings (Straus), which makes the blinding cost a quarter.
 *   faults                   one wrong half gives the primes away (Boneh, DeMillo, Lipton), so the result is raised to
 *                            the public exponent and compared before it leaves.
 *   memory                   all of it is one block, wiped before it is given back.
 *
 * Numbers are arrays of 64-bit limbs, the least first. R is 2**64 to the number of a modulus' limbs; "in Montgomery
 * form" means multiplied by R.
 */
#include "rsa_power.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t Limb;
typedef unsigned __int128 Wide;

#define LIMB_BYTES sizeof(Limb)
#define WINDOW 5
#define ENTRIES (1 << WINDOW)

typedef struct {
    const Limb *limbs;
    size_t count;
    Limb inverse;       /* of -m modulo 2**64 */
    const Limb *square; /* R * R modulo m */
    Limb *scratch;      /* count + 1 limbs for a product */
} Modulus;

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* One block; what is taken from it is zero, and all is wiped at the end. */
typedef struct {
    Limb *block;
    size_t room, used;
} Memory;

static int memory_open(Memory *memory, size_t limbs)
{
    memory->block = calloc(limbs, LIMB_BYTES);
    memory->room = limbs;
    memory->used = 0;
    return memory->block != NULL;
}

static Limb *take(Memory *memory, size_t limbs)
{
    Limb *taken = memory->block + memory->used;

    memory->used += limbs;
    if (memory->used > memory->room)
        abort(); /* the sizes below are wrong */
    return taken;
}

static void memory_close(Memory *memory)
{
    explicit_bzero(memory->block, memory->room * LIMB_BYTES);
    free(memory->block);
}

/* ---- Limbs ------------------------------------------------------------------------------------------------------- */

/* All bits set for 1, none for 0; the compiler is not to know that there are only these two. */
static inline Limb mask_of(Limb bit)
{
    __asm__("" : "+r"(bit));
    return 0 - bit;
}

static size_t limbs_for(size_t bytes)
{
    return (bytes + LIMB_BYTES - 1) / LIMB_BYTES;
}

/* Leading bytes that have no room are left out: callers have seen to it that there are none but zeros. */
static void read_number(Limb *limbs, size_t count, const Number *number)
{
    size_t i;

    memset(limbs, 0, count * LIMB_BYTES);
    for (i = 0; i < number->length && i < count * LIMB_BYTES; i++)
        limbs[i / LIMB_BYTES] |= (Limb)number->bytes[number->length - 1 - i] << 8 * (i % LIMB_BYTES);
}

static void write_number(unsigned char *bytes, size_t length, const Limb *limbs)
{
    size_t i;

    for (i = 0; i < length; i++)
        bytes[length - 1 - i] = (unsigned char)(limbs[i / LIMB_BYTES] >> 8 * (i % LIMB_BYTES));
}

/* result = a - b; answers the borrow. */
static Limb subtract(Limb *result, const Limb *a, const Limb *b, size_t count)
{
    Limb borrow = 0;
    size_t i;

    for (i = 0; i < count; i++) {
        Wide difference = (Wide)a[i] - b[i] - borrow;
        result[i] = (Limb)difference;
        borrow = (Limb)(difference >> 64) & 1;
    }
    return borrow;
}

/* result = a + b; answers the carry. */
static Limb add(Limb *result, const Limb *a, const Limb *b, size_t count)
{
    Limb carry = 0;
    size_t i;

    for (i = 0; i < count; i++) {
        Wide sum = (Wide)a[i] + b[i] + carry;
        result[i] = (Limb)sum;
        carry = (Limb)(sum >> 64);
    }
    return carry;
}

/* result = a where mask is set, else b. */
static void choose(Limb *result, Limb mask, const Limb *a, const Limb *b, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        result[i] = (a[i] & mask) | (b[i] & ~mask);
}

/* ---- Modulo m ---------------------------------------------------------------------------------------------------- */

/* result = (carry, value) modulo m, for what is less than 2 m. `value` is in scratch, `result` elsewhere. */
static void reduce_once(Limb *result, Limb carry, const Limb *value, const Modulus *m)
{
    Limb borrow = subtract(result, value, m->limbs, m->count);

    choose(result, mask_of(borrow & (carry ^ 1)), value, result, m->count);
}

/* result = a * b / R modulo m, less than m if one of both is. It may be one of them. */
static void multiply(Limb *result, const Limb *a, const Limb *b, const Modulus *m)
{
    size_t count = m->count, i, j;
    Limb *t = m->scratch;
    const Limb *limbs = m->limbs;

    memset(t, 0, (count + 1) * LIMB_BYTES);
    for (i = 0; i < count; i++) {
        Limb factor = a[i], times, carry = 0, top;
        Wide sum;

        for (j = 0; j < count; j++) {
            sum = (Wide)factor * b[j] + t[j] + carry;
            t[j] = (Limb)sum;
            carry = (Limb)(sum >> 64);
        }
        sum = (Wide)t[count] + carry;
        t[count] = (Limb)sum;
        top = (Limb)(sum >> 64);
        times = t[0] * m->inverse;
        sum = (Wide)times * limbs[0] + t[0];
        carry = (Limb)(sum >> 64);
        for (j = 1; j < count; j++) {
            sum = (Wide)times * limbs[j] + t[j] + carry;
            t[j - 1] = (Limb)sum;
            carry = (Limb)(sum >> 64);
        }
        sum = (Wide)t[count] + carry;
        t[count - 1] = (Limb)sum;
        t[count] = top + (Limb)(sum >> 64);
    }
    reduce_once(result, t[count], t, m);
}

static void add_modulo(Limb *result, const Limb *a, const Limb *b, const Modulus *m)
{
    Limb carry = add(m->scratch, a, b, m->count);

    reduce_once(result, carry, m->scratch, m);
}

/* result = a - b modulo m, both less than m. */
static void subtract_modulo(Limb *result, const Limb *a, const Limb *b, const Modulus *m)
{
    Limb mask = mask_of(subtract(result, a, b, m->count));
    size_t i;

    for (i = 0; i < m->count; i++)
        m->scratch[i] = m->limbs[i] & mask;
    add(result, result, m->scratch, m->count);
}

/* Makes a number ready for use as a modulus. It is odd and begins with no zero byte; its length in bits is public. */
static void modulus_open(Modulus *m, Memory *memory, const Number *number)
{
    size_t count = limbs_for(number->length), bits = 64 * count, i;
    Limb *limbs = take(memory, count), *square = take(memory, count), inverse = 1;

    read_number(limbs, count, number);
    for (i = 0; i < 6; i++) /* Newton: each step doubles the bits that are right */
        inverse *= 2 - limbs[0] * inverse;
    *m = (Modulus){limbs, count, 0 - inverse, square, take(memory, count + 1)};
    while ((limbs[(bits - 1) / 64] >> (bits - 1) % 64 & 1) == 0)
        bits--;
    square[(bits - 1) / 64] = (Limb)1 << (bits - 1) % 64;
    for (i = bits - 1; i < 64 * count + 1; i++) /* up to 2 R */
        add_modulo(square, square, square, m);
    for (bits = 1; 2 * bits <= 64 * count; bits *= 2)
        ;
    for (bits /= 2; bits > 0; bits /= 2) { /* 2**k R: the bits of 64 * count from the second on give k */
        multiply(square, square, square, m);
        if ((64 * count & bits) != 0)
            add_modulo(square, square, square, m);
    }
}

/* How many limbs modulus_open() takes. */
static size_t modulus_limbs(const Number *number)
{
    return 3 * limbs_for(number->length) + 1;
}

/* result = value modulo m in Montgomery form, of any length: Horner's scheme with R. `part` is as long as m. */
static void enter(Limb *result, const Limb *value, size_t count, const Modulus *m, Limb *part)
{
    size_t end = (count + m->count - 1) / m->count;

    memset(result, 0, m->count * LIMB_BYTES);
    while (end-- > 0) {
        size_t start = end * m->count, here = count - start < m->count ? count - start : m->count;

        multiply(result, result, m->square, m);
        memset(part, 0, m->count * LIMB_BYTES);
        memcpy(part, value + start, here * LIMB_BYTES);
        multiply(part, part, m->square, m);
        add_modulo(result, result, part, m);
    }
}

/* result = value, in Montgomery form, as the number that it stands for. */
static void leave(Limb *result, const Limb *value, const Modulus *m, Limb *one)
{
    memset(one, 0, m->count * LIMB_BYTES);
    one[0] = 1;
    multiply(result, value, one, m);
}

/* result = value ** exponent, both in Montgomery form; the exponent is public. */
static void raise(Limb *result, const Limb *value, Number exponent, const Modulus *m)
{
    size_t bit = 8 * exponent.length;

    while (bit > 0 && (exponent.bytes[exponent.length - 1 - (bit - 1) / 8] >> (bit - 1) % 8 & 1) == 0)
        bit--;
    memcpy(result, value, m->count * LIMB_BYTES);
    for (bit = bit > 0 ? bit - 1 : 0; bit > 0; bit--) {
        multiply(result, result, result, m);
        if (exponent.bytes[exponent.length - 1 - (bit - 1) / 8] >> (bit - 1) % 8 & 1)
            multiply(result, result, value, m);
    }
}

/* ---- Secret exponents -------------------------------------------------------------------------------------------- */

/* All powers of base up to ENTRIES - 1, in Montgomery form. */
static Limb *table_of(const Limb *base, const Modulus *m, Memory *memory)
{
    Limb *table = take(memory, ENTRIES * m->count), *one = take(memory, m->count);
    size_t i;

    one[0] = 1;
    multiply(table, m->square, one, m);
    for (i = 1; i < ENTRIES; i++)
        multiply(table + i * m->count, table + (i - 1) * m->count, base, m);
    return table;
}

/* result = table[wanted], with every entry read. */
static void look_up(Limb *result, const Limb *table, Limb wanted, size_t count)
{
    size_t i, j;

    memset(result, 0, count * LIMB_BYTES);
    for (i = 0; i < ENTRIES; i++) {
        Limb other = i ^ wanted, mask = mask_of((other - 1) >> 63);

        for (j = 0; j < count; j++)
            result[j] |= table[i * count + j] & mask;
    }
}

/* The WINDOW bits of an exponent that begin at bit `start`. */
static Limb window(const Limb *exponent, size_t count, size_t start)
{
    Limb bits = exponent[start / 64] >> start % 64;

    if (start % 64 > 64 - WINDOW && start / 64 + 1 < count)
        bits |= exponent[start / 64 + 1] << (64 - start % 64);
    return bits & (ENTRIES - 1);
}

/* result = a ** x * b ** y modulo m; exponents as long as m, all else in Montgomery form. */
static void raise_both(Limb *result, const Limb *a, const Limb *x, const Limb *b, const Limb *y, const Modulus *m,
                       Memory *memory)
{
    Limb *of_a = table_of(a, m, memory), *of_b = table_of(b, m, memory), *entry = take(memory, m->count);
    size_t start = (64 * m->count + WINDOW - 1) / WINDOW, i;

    memcpy(result, of_a, m->count * LIMB_BYTES);
    while (start-- > 0) {
        for (i = 0; i < WINDOW; i++)
            multiply(result, result, result, m);
        look_up(entry, of_a, window(x, m->count, start * WINDOW), m->count);
        multiply(result, result, entry, m);
        look_up(entry, of_b, window(y, m->count, start * WINDOW), m->count);
        multiply(result, result, entry, m);
    }
}

/* How many limbs raise_both() takes. */
static size_t raise_both_limbs(size_t count)
{
    return (2 * ENTRIES + 3) * count;
}

/* result = value ** exponent modulo the prime, as a number, from value * r and r, all of `count` limbs. */
static void half(Limb *result, const Limb *blinded, const Limb *r, size_t count, const Number *exponent,
                 const Modulus *prime, Memory *memory)
{
    Limb *x = take(memory, prime->count), *y = take(memory, prime->count);
    Limb *base = take(memory, prime->count), *mask = take(memory, prime->count), *part = take(memory, prime->count);

    read_number(x, prime->count, exponent);
    part[0] = 1;
    subtract(y, prime->limbs, part, prime->count); /* p - 1 - exponent, which is less than p - 1 */
    subtract(y, y, x, prime->count);
    enter(base, blinded, count, prime, part);
    enter(mask, r, count, prime, part);
    raise_both(result, base, x, mask, y, prime, memory);
    leave(result, result, prime, part);
}

/* How many limbs half() takes. */
static size_t half_limbs(size_t count)
{
    return 5 * count + raise_both_limbs(count);
}

/* result = of_q + (of_p - of_q) / q modulo p * q: the number below n that is of_p modulo p and of_q modulo q. */
static void recombine(Limb *result, size_t count, const Limb *of_p, const Limb *of_q, const Number *coefficient,
                      const Modulus *p, const Modulus *q, Memory *memory)
{
    Limb *times = take(memory, p->count), *part = take(memory, p->count), *other = take(memory, p->count);
    size_t i, j;

    enter(other, of_q, q->count, p, part);
    leave(other, other, p, part);
    subtract_modulo(times, of_p, other, p);
    read_number(part, p->count, coefficient);
    multiply(times, times, p->square, p); /* Montgomery form of one factor: the product is the number itself */
    multiply(times, part, times, p);
    memset(result, 0, count * LIMB_BYTES);
    memcpy(result, of_q, (q->count < count ? q->count : count) * LIMB_BYTES);
    for (i = 0; i < p->count; i++) {
        Limb carry = 0;

        for (j = 0; i + j < count; j++) {
            Wide sum = (Wide)times[i] * (j < q->count ? q->limbs[j] : 0) + result[i + j] + carry;
            result[i + j] = (Limb)sum;
            carry = (Limb)(sum >> 64);
        }
    }
}

/* How many limbs recombine() takes. */
static size_t recombine_limbs(size_t count)
{
    return 3 * count;
}

/* ---- RSA --------------------------------------------------------------------------------------------------------- */

static int is_modulus(const Number *number)
{
    return number->length > 0 && number->bytes[0] != 0 && (number->bytes[number->length - 1] & 1) != 0;
}

int public_power(unsigned char *result, const Number *value, const Number *modulus, const Number *exponent)
{
    size_t count = limbs_for(modulus->length);
    Limb *base, *power, *part;
    Memory memory;
    Modulus n;

    if (!is_modulus(modulus))
        return POWER_WRONG;
    if (!memory_open(&memory, modulus_limbs(modulus) + 3 * count))
        return POWER_NO_MEMORY;
    modulus_open(&n, &memory, modulus);
    base = take(&memory, count);
    power = take(&memory, count);
    part = take(&memory, count);
    read_number(power, count, value);
    enter(base, power, count, &n, part);
    raise(power, base, *exponent, &n);
    leave(power, power, &n, part);
    write_number(result, modulus->length, power);
    memory_close(&memory);
    return POWER_OK;
}

/* result = value ** d mod n. All is read and wiped by the caller; answers whether the result was verified. */
static int private_power_in(Memory *memory, unsigned char *result, const Number *value, const PrivateKey *key)
{
    size_t count = limbs_for(key->modulus.length), drawn = limbs_for(key->random.length), i;
    Limb *input = take(memory, count), *r = take(memory, count), *blinded = take(memory, count);
    Limb *power = take(memory, count), *part = take(memory, count), *random = take(memory, drawn);
    Limb *of_p, *of_q, difference = 0;
    Modulus n, p, q;

    modulus_open(&n, memory, &key->modulus);
    modulus_open(&p, memory, &key->prime_1);
    modulus_open(&q, memory, &key->prime_2);
    of_p = take(memory, p.count);
    of_q = take(memory, q.count);
    read_number(input, count, value);
    read_number(random, drawn, &key->random);
    enter(r, random, drawn, &n, part);
    multiply(blinded, input, r, &n);
    leave(r, r, &n, part);
    half(of_p, blinded, r, count, &key->exponent_1, &p, memory);
    half(of_q, blinded, r, count, &key->exponent_2, &q, memory);
    recombine(power, count, of_p, of_q, &key->coefficient, &p, &q, memory);
    enter(blinded, power, count, &n, part);
    raise(r, blinded, key->public_exponent, &n);
    leave(r, r, &n, part);
    for (i = 0; i < count; i++)
        difference |= r[i] ^ input[i];
    if (difference != 0)
        return POWER_WRONG;
    write_number(result, key->modulus.length, power);
    return POWER_OK;
}

int private_power(unsigned char *result, const Number *value, const PrivateKey *key)
{
    size_t count = limbs_for(key->modulus.length), of_p = limbs_for(key->prime_1.length);
    size_t of_q = limbs_for(key->prime_2.length);
    Memory memory;
    int answer;

    if (!is_modulus(&key->modulus) || !is_modulus(&key->prime_1) || !is_modulus(&key->prime_2) ||
        key->exponent_1.length != key->prime_1.length || key->exponent_2.length != key->prime_2.length ||
        key->coefficient.length != key->prime_1.length || key->random.length < key->modulus.length + 16)
        return POWER_WRONG;
    if (!memory_open(&memory, 5 * count + limbs_for(key->random.length) + modulus_limbs(&key->modulus) +
                                  modulus_limbs(&key->prime_1) + modulus_limbs(&key->prime_2) + of_p + of_q +
                                  half_limbs(of_p) + half_limbs(of_q) + recombine_limbs(of_p)))
        return POWER_NO_MEMORY;
    answer = private_power_in(&memory, result, value, key);
    memory_close(&memory);
    return answer;
}
