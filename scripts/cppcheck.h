/*
 * What the macros of the PostgreSQL headers mean to the flow of a function, for
 * cppcheck, which reads src/ without those headers.  Nothing is compiled with it.
 */
#ifndef PRESENCE_CPPCHECK_H
#define PRESENCE_CPPCHECK_H

#include <stdlib.h>

#define PG_MODULE_MAGIC
#define PG_MODULE_MAGIC_EXT(...)
#define PG_FUNCTION_INFO_V1(name) extern int name##_finfo
#define PGDLLEXPORT
#define PGDLLIMPORT
#define FLEXIBLE_ARRAY_MEMBER 1

#define DEBUG1 14
#define LOG 15
#define INFO 17
#define NOTICE 18
#define WARNING 19
#define ERROR 21
#define FATAL 22
#define PANIC 23

/* an error does not come back */
#define ereport(level, ...) do { (void) (__VA_ARGS__); if ((level) >= ERROR) abort(); } while (0)
#define elog(level, ...) do { if ((level) >= ERROR) abort(); } while (0)
#define Assert(condition) ((void) 0)
#define StaticAssertDecl(condition, message) extern int static_assertion
#define StaticAssertStmt(condition, message) ((void) 0)

#define PG_TRY() do {
#define PG_CATCH() } while (0); do {
#define PG_FINALLY() } while (0); do {
#define PG_END_TRY() } while (0)
#define PG_RE_THROW() abort()

#endif
