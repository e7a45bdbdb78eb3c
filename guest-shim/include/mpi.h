/*
 * MPI for programs that run in Partita partitions.
 *
 * Values and layouts are those of the MPI 5.0 standard ABI, so an object compiled with this header also links with any
 * other library of that ABI. Additions to the ABI: MPI_Fint with c2f and f2c, and names of MPI-1 that programs still use.
 * Only what the library can do is declared: what is missing here fails to compile, not to run.
 *
 * PARTITA_RSMPI (set by mpicc-rsmpi) also declares what the Rust crate "mpi" mentions in its bindings. A program that
 * uses one of those fails to link, with the name of the function.
 */
#ifndef PARTITA_MPI_H
#define PARTITA_MPI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MPI_VERSION        5
#define MPI_SUBVERSION     0
#define MPI_ABI_VERSION    1
#define MPI_ABI_SUBVERSION 0
#define PARTITA_MPI        1

typedef intptr_t MPI_Aint;
typedef int64_t  MPI_Offset;
typedef int64_t  MPI_Count;
typedef int      MPI_Fint;

typedef struct {
    int MPI_SOURCE;
    int MPI_TAG;
    int MPI_ERROR;
    int MPI_internal[5];
} MPI_Status;

typedef struct MPI_ABI_Comm *MPI_Comm;
typedef struct MPI_ABI_Datatype *MPI_Datatype;
typedef struct MPI_ABI_Errhandler *MPI_Errhandler;
typedef struct MPI_ABI_Group *MPI_Group;
typedef struct MPI_ABI_Info *MPI_Info;
typedef struct MPI_ABI_Message *MPI_Message;
typedef struct MPI_ABI_Op *MPI_Op;
typedef struct MPI_ABI_Request *MPI_Request;


/* Operations. */
#define MPI_OP_NULL                    ((MPI_Op)0x020)
#define MPI_SUM                        ((MPI_Op)0x021)
#define MPI_MIN                        ((MPI_Op)0x022)
#define MPI_MAX                        ((MPI_Op)0x023)
#define MPI_PROD                       ((MPI_Op)0x024)
#define MPI_BAND                       ((MPI_Op)0x028)
#define MPI_BOR                        ((MPI_Op)0x029)
#define MPI_BXOR                       ((MPI_Op)0x02a)
#define MPI_LAND                       ((MPI_Op)0x030)
#define MPI_LOR                        ((MPI_Op)0x031)
#define MPI_LXOR                       ((MPI_Op)0x032)
#define MPI_MINLOC                     ((MPI_Op)0x038)
#define MPI_MAXLOC                     ((MPI_Op)0x039)

/* Communicators. */
#define MPI_COMM_NULL                  ((MPI_Comm)0x100)
#define MPI_COMM_WORLD                 ((MPI_Comm)0x101)
#define MPI_COMM_SELF                  ((MPI_Comm)0x102)

/* Groups. */
#define MPI_GROUP_NULL                 ((MPI_Group)0x108)
#define MPI_GROUP_EMPTY                ((MPI_Group)0x109)

/* Messages. */
#define MPI_MESSAGE_NULL               ((MPI_Message)0x128)
#define MPI_MESSAGE_NO_PROC            ((MPI_Message)0x129)

/* Infos. */
#define MPI_INFO_ENV                   ((MPI_Info)0x131)
#define MPI_INFO_NULL                  ((MPI_Info)0x130)

/* Error handlers. */
#define MPI_ERRHANDLER_NULL            ((MPI_Errhandler)0x140)
#define MPI_ERRORS_ARE_FATAL           ((MPI_Errhandler)0x141)
#define MPI_ERRORS_ABORT               ((MPI_Errhandler)0x142)
#define MPI_ERRORS_RETURN              ((MPI_Errhandler)0x143)

/* Requests. */
#define MPI_REQUEST_NULL               ((MPI_Request)0x180)

/* Datatypes. */
#define MPI_DATATYPE_NULL              ((MPI_Datatype)0x200)
#define MPI_AINT                       ((MPI_Datatype)0x201)
#define MPI_COUNT                      ((MPI_Datatype)0x202)
#define MPI_OFFSET                     ((MPI_Datatype)0x203)
#define MPI_PACKED                     ((MPI_Datatype)0x207)
#define MPI_SHORT                      ((MPI_Datatype)0x208)
#define MPI_INT                        ((MPI_Datatype)0x209)
#define MPI_LONG                       ((MPI_Datatype)0x20a)
#define MPI_LONG_LONG                  ((MPI_Datatype)0x20b)
#define MPI_LONG_LONG_INT              MPI_LONG_LONG
#define MPI_UNSIGNED_SHORT             ((MPI_Datatype)0x20c)
#define MPI_UNSIGNED                   ((MPI_Datatype)0x20d)
#define MPI_UNSIGNED_LONG              ((MPI_Datatype)0x20e)
#define MPI_UNSIGNED_LONG_LONG         ((MPI_Datatype)0x20f)
#define MPI_FLOAT                      ((MPI_Datatype)0x210)
#define MPI_C_FLOAT_COMPLEX            ((MPI_Datatype)0x212)
#define MPI_C_COMPLEX                  MPI_C_FLOAT_COMPLEX
#define MPI_CXX_FLOAT_COMPLEX          ((MPI_Datatype)0x213)
#define MPI_DOUBLE                     ((MPI_Datatype)0x214)
#define MPI_C_DOUBLE_COMPLEX           ((MPI_Datatype)0x216)
#define MPI_CXX_DOUBLE_COMPLEX         ((MPI_Datatype)0x217)
#define MPI_LOGICAL                    ((MPI_Datatype)0x218)
#define MPI_INTEGER                    ((MPI_Datatype)0x219)
#define MPI_REAL                       ((MPI_Datatype)0x21a)
#define MPI_COMPLEX                    ((MPI_Datatype)0x21b)
#define MPI_DOUBLE_PRECISION           ((MPI_Datatype)0x21c)
#define MPI_DOUBLE_COMPLEX             ((MPI_Datatype)0x21d)
#define MPI_CHARACTER                  ((MPI_Datatype)0x21e)
#define MPI_LONG_DOUBLE                ((MPI_Datatype)0x220)
#define MPI_C_LONG_DOUBLE_COMPLEX      ((MPI_Datatype)0x224)
#define MPI_CXX_LONG_DOUBLE_COMPLEX    ((MPI_Datatype)0x225)
#define MPI_FLOAT_INT                  ((MPI_Datatype)0x228)
#define MPI_DOUBLE_INT                 ((MPI_Datatype)0x229)
#define MPI_LONG_INT                   ((MPI_Datatype)0x22a)
#define MPI_2INT                       ((MPI_Datatype)0x22b)
#define MPI_SHORT_INT                  ((MPI_Datatype)0x22c)
#define MPI_LONG_DOUBLE_INT            ((MPI_Datatype)0x22d)
#define MPI_2REAL                      ((MPI_Datatype)0x230)
#define MPI_2DOUBLE_PRECISION          ((MPI_Datatype)0x231)
#define MPI_2INTEGER                   ((MPI_Datatype)0x232)
#define MPI_C_BOOL                     ((MPI_Datatype)0x238)
#define MPI_CXX_BOOL                   ((MPI_Datatype)0x239)
#define MPI_WCHAR                      ((MPI_Datatype)0x23c)
#define MPI_INT8_T                     ((MPI_Datatype)0x240)
#define MPI_UINT8_T                    ((MPI_Datatype)0x241)
#define MPI_CHAR                       ((MPI_Datatype)0x243)
#define MPI_SIGNED_CHAR                ((MPI_Datatype)0x244)
#define MPI_UNSIGNED_CHAR              ((MPI_Datatype)0x245)
#define MPI_BYTE                       ((MPI_Datatype)0x247)
#define MPI_INT16_T                    ((MPI_Datatype)0x248)
#define MPI_UINT16_T                   ((MPI_Datatype)0x249)
#define MPI_INT32_T                    ((MPI_Datatype)0x250)
#define MPI_UINT32_T                   ((MPI_Datatype)0x251)
#define MPI_INT64_T                    ((MPI_Datatype)0x258)
#define MPI_UINT64_T                   ((MPI_Datatype)0x259)
#define MPI_LOGICAL1                   ((MPI_Datatype)0x2c0)
#define MPI_INTEGER1                   ((MPI_Datatype)0x2c1)
#define MPI_LOGICAL2                   ((MPI_Datatype)0x2c8)
#define MPI_INTEGER2                   ((MPI_Datatype)0x2c9)
#define MPI_REAL2                      ((MPI_Datatype)0x2ca)
#define MPI_LOGICAL4                   ((MPI_Datatype)0x2d0)
#define MPI_INTEGER4                   ((MPI_Datatype)0x2d1)
#define MPI_REAL4                      ((MPI_Datatype)0x2d2)
#define MPI_COMPLEX4                   ((MPI_Datatype)0x2d3)
#define MPI_LOGICAL8                   ((MPI_Datatype)0x2d8)
#define MPI_INTEGER8                   ((MPI_Datatype)0x2d9)
#define MPI_REAL8                      ((MPI_Datatype)0x2da)
#define MPI_COMPLEX8                   ((MPI_Datatype)0x2db)
#define MPI_LOGICAL16                  ((MPI_Datatype)0x2e0)
#define MPI_INTEGER16                  ((MPI_Datatype)0x2e1)
#define MPI_REAL16                     ((MPI_Datatype)0x2e2)
#define MPI_COMPLEX16                  ((MPI_Datatype)0x2e3)
#define MPI_COMPLEX32                  ((MPI_Datatype)0x2eb)

/* Special buffers and arguments. */
#define MPI_BOTTOM                     ((void *)0)
#define MPI_IN_PLACE                   ((void *)1)
#define MPI_STATUS_IGNORE              ((MPI_Status *)0)
#define MPI_STATUSES_IGNORE            ((MPI_Status *)0)

#define MPI_UNWEIGHTED                 ((int *)10)
#define MPI_WEIGHTS_EMPTY              ((int *)11)

/* Lengths of strings with their NUL, in bytes. */
#define MPI_MAX_PROCESSOR_NAME         256
#define MPI_MAX_ERROR_STRING           512
#define MPI_MAX_OBJECT_NAME            128
#define MPI_MAX_INFO_KEY               256
#define MPI_MAX_INFO_VAL               1024
#define MPI_MAX_LIBRARY_VERSION_STRING 8192
#define MPI_BSEND_OVERHEAD             512

/* Error classes. */
enum {
    MPI_SUCCESS                    = 0,
    MPI_ERR_BUFFER                 = 1,
    MPI_ERR_COUNT                  = 2,
    MPI_ERR_TYPE                   = 3,
    MPI_ERR_TAG                    = 4,
    MPI_ERR_COMM                   = 5,
    MPI_ERR_RANK                   = 6,
    MPI_ERR_REQUEST                = 7,
    MPI_ERR_ROOT                   = 8,
    MPI_ERR_GROUP                  = 9,
    MPI_ERR_OP                     = 10,
    MPI_ERR_TOPOLOGY               = 11,
    MPI_ERR_DIMS                   = 12,
    MPI_ERR_ARG                    = 13,
    MPI_ERR_UNKNOWN                = 14,
    MPI_ERR_TRUNCATE               = 15,
    MPI_ERR_OTHER                  = 16,
    MPI_ERR_INTERN                 = 17,
    MPI_ERR_PENDING                = 18,
    MPI_ERR_IN_STATUS              = 19,
    MPI_ERR_ACCESS                 = 20,
    MPI_ERR_AMODE                  = 21,
    MPI_ERR_ASSERT                 = 22,
    MPI_ERR_BAD_FILE               = 23,
    MPI_ERR_BASE                   = 24,
    MPI_ERR_CONVERSION             = 25,
    MPI_ERR_DISP                   = 26,
    MPI_ERR_DUP_DATAREP            = 27,
    MPI_ERR_FILE_EXISTS            = 28,
    MPI_ERR_FILE_IN_USE            = 29,
    MPI_ERR_FILE                   = 30,
    MPI_ERR_INFO_KEY               = 31,
    MPI_ERR_INFO_NOKEY             = 32,
    MPI_ERR_INFO_VALUE             = 33,
    MPI_ERR_INFO                   = 34,
    MPI_ERR_IO                     = 35,
    MPI_ERR_KEYVAL                 = 36,
    MPI_ERR_LOCKTYPE               = 37,
    MPI_ERR_NAME                   = 38,
    MPI_ERR_NO_MEM                 = 39,
    MPI_ERR_NOT_SAME               = 40,
    MPI_ERR_NO_SPACE               = 41,
    MPI_ERR_NO_SUCH_FILE           = 42,
    MPI_ERR_PORT                   = 43,
    MPI_ERR_QUOTA                  = 44,
    MPI_ERR_READ_ONLY              = 45,
    MPI_ERR_RMA_ATTACH             = 46,
    MPI_ERR_RMA_CONFLICT           = 47,
    MPI_ERR_RMA_RANGE              = 48,
    MPI_ERR_RMA_SHARED             = 49,
    MPI_ERR_RMA_SYNC               = 50,
    MPI_ERR_SERVICE                = 51,
    MPI_ERR_SIZE                   = 52,
    MPI_ERR_SPAWN                  = 53,
    MPI_ERR_UNSUPPORTED_DATAREP    = 54,
    MPI_ERR_UNSUPPORTED_OPERATION  = 55,
    MPI_ERR_WIN                    = 56,
    MPI_ERR_RMA_FLAVOR             = 57,
    MPI_ERR_PROC_ABORTED           = 58,
    MPI_ERR_VALUE_TOO_LARGE        = 59,
    MPI_ERR_SESSION                = 60,
    MPI_ERR_ERRHANDLER             = 61,
    MPI_ERR_ABI                    = 62,
    MPI_ERR_LASTCODE               = 16383
};

/* Ranks, tags, colors. */
enum {
    MPI_ANY_SOURCE                 = -1,
    MPI_ANY_TAG                    = -2,
    MPI_PROC_NULL                  = -3,
    MPI_ROOT                       = -4,
    MPI_UNDEFINED                  = -32766
};

/* Thread levels (at most MPI_THREAD_SERIALIZED is provided). */
enum {
    MPI_THREAD_SINGLE              = 0,
    MPI_THREAD_FUNNELED            = 1024,
    MPI_THREAD_SERIALIZED          = 2048,
    MPI_THREAD_MULTIPLE            = 4096
};

/* Results of comparisons. */
enum {
    MPI_IDENT                      = 201,
    MPI_CONGRUENT                  = 202,
    MPI_SIMILAR                    = 203,
    MPI_UNEQUAL                    = 204
};

/* Arrays, kinds of communicators. */
enum {
    MPI_ORDER_C                    = 12,
    MPI_ORDER_FORTRAN              = 15,
    MPI_DISTRIBUTE_NONE            = 16,
    MPI_DISTRIBUTE_BLOCK           = 17,
    MPI_DISTRIBUTE_CYCLIC          = 18,
    MPI_DISTRIBUTE_DFLT_DARG       = 19,
    MPI_COMM_TYPE_SHARED           = 221,
    MPI_COMM_TYPE_HW_UNGUIDED      = 222,
    MPI_COMM_TYPE_HW_GUIDED        = 223
};

/* Topologies. */
enum {
    MPI_CART                       = 211,
    MPI_GRAPH                      = 212,
    MPI_DIST_GRAPH                 = 213
};

/* How a datatype was made. */
enum {
    MPI_COMBINER_NAMED             = 101,
    MPI_COMBINER_DUP               = 102,
    MPI_COMBINER_CONTIGUOUS        = 103,
    MPI_COMBINER_VECTOR            = 104,
    MPI_COMBINER_HVECTOR           = 105,
    MPI_COMBINER_INDEXED           = 106,
    MPI_COMBINER_HINDEXED          = 107,
    MPI_COMBINER_INDEXED_BLOCK     = 108,
    MPI_COMBINER_HINDEXED_BLOCK    = 109,
    MPI_COMBINER_STRUCT            = 110,
    MPI_COMBINER_SUBARRAY          = 111,
    MPI_COMBINER_DARRAY            = 112,
    MPI_COMBINER_F90_REAL          = 113,
    MPI_COMBINER_F90_COMPLEX       = 114,
    MPI_COMBINER_F90_INTEGER       = 115,
    MPI_COMBINER_RESIZED           = 116,
    MPI_COMBINER_VALUE_INDEX       = 117
};

/* Classes of MPI_Type_match_size. */
enum {
    MPI_TYPECLASS_INTEGER          = 192,
    MPI_TYPECLASS_REAL             = 193,
    MPI_TYPECLASS_COMPLEX          = 194
};

/* Attribute keys. */
enum {
    MPI_KEYVAL_INVALID             = 0,
    MPI_TAG_UB                     = 501,
    MPI_IO                         = 502,
    MPI_HOST                       = 503,
    MPI_WTIME_IS_GLOBAL            = 504,
    MPI_APPNUM                     = 505,
    MPI_LASTUSEDCODE               = 506,
    MPI_UNIVERSE_SIZE              = 507
};

/* A status in Fortran. */
enum {
    MPI_F_STATUS_SIZE              = 8,
    MPI_F_SOURCE                   = 0,
    MPI_F_TAG                      = 1,
    MPI_F_ERROR                    = 2
};

/* Functions of the program. */
typedef void (MPI_User_function)(void *invec, void *inoutvec, int *len, MPI_Datatype *datatype);
typedef int (MPI_Comm_copy_attr_function)(MPI_Comm comm, int keyval, void *extra_state, void *value_in, void *value_out,
                                          int *flag);
typedef int (MPI_Comm_delete_attr_function)(MPI_Comm comm, int keyval, void *value, void *extra_state);
typedef int (MPI_Type_copy_attr_function)(MPI_Datatype datatype, int keyval, void *extra_state, void *value_in,
                                          void *value_out, int *flag);
typedef int (MPI_Type_delete_attr_function)(MPI_Datatype datatype, int keyval, void *value, void *extra_state);
typedef int (MPI_Grequest_query_function)(void *extra_state, MPI_Status *status);
typedef int (MPI_Grequest_free_function)(void *extra_state);
typedef int (MPI_Grequest_cancel_function)(void *extra_state, int complete);
typedef void (MPI_Comm_errhandler_function)(MPI_Comm *comm, int *code, ...);
typedef MPI_Comm_copy_attr_function MPI_Copy_function;
typedef MPI_Comm_delete_attr_function MPI_Delete_function;
typedef MPI_Comm_errhandler_function MPI_Handler_function;
typedef MPI_Comm_errhandler_function MPI_Comm_errhandler_fn;

#define MPI_COMM_NULL_COPY_FN   ((MPI_Comm_copy_attr_function *)0)
#define MPI_COMM_DUP_FN         ((MPI_Comm_copy_attr_function *)1)
#define MPI_COMM_NULL_DELETE_FN ((MPI_Comm_delete_attr_function *)0)
#define MPI_TYPE_NULL_COPY_FN   ((MPI_Type_copy_attr_function *)0)
#define MPI_TYPE_DUP_FN         ((MPI_Type_copy_attr_function *)1)
#define MPI_TYPE_NULL_DELETE_FN ((MPI_Type_delete_attr_function *)0)
#define MPI_NULL_COPY_FN        MPI_COMM_NULL_COPY_FN
#define MPI_DUP_FN              MPI_COMM_DUP_FN
#define MPI_NULL_DELETE_FN      MPI_COMM_NULL_DELETE_FN

/* The process. */
int MPI_Init(int *argc, char ***argv);
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int MPI_Query_thread(int *provided);
int MPI_Is_thread_main(int *flag);
int MPI_Finalize(void);
int MPI_Initialized(int *flag);
int MPI_Finalized(int *flag);
int MPI_Abort(MPI_Comm comm, int code);
int MPI_Get_processor_name(char *name, int *length);
int MPI_Get_version(int *version, int *subversion);
int MPI_Get_library_version(char *text, int *length);
int MPI_Abi_get_version(int *version, int *subversion);
int MPI_Error_string(int code, char *text, int *length);
int MPI_Error_class(int code, int *errorclass);
int MPI_Alloc_mem(MPI_Aint size, MPI_Info info, void *pointer);
int MPI_Free_mem(void *pointer);
int MPI_Pcontrol(const int level, ...);
double MPI_Wtime(void);
double MPI_Wtick(void);
MPI_Aint MPI_Aint_add(MPI_Aint base, MPI_Aint displacement);
MPI_Aint MPI_Aint_diff(MPI_Aint first, MPI_Aint second);

/* Sends, receives, probes. */
int MPI_Send(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int MPI_Isend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Send_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Rsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int MPI_Irsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Rsend_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Ssend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int MPI_Issend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Ssend_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Bsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int MPI_Ibsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Bsend_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Recv(void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm, MPI_Status *status);
int MPI_Irecv(void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm, MPI_Request *request);
int MPI_Recv_init(void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm,
        MPI_Request *request);
int MPI_Sendrecv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, int dest, int sendtag, void *recvbuf,
        int recvcount, MPI_Datatype recvtype, int source, int recvtag, MPI_Comm comm, MPI_Status *status);
int MPI_Sendrecv_replace(void *buf, int count, MPI_Datatype datatype, int dest, int sendtag, int source, int recvtag,
        MPI_Comm comm, MPI_Status *status);
int MPI_Probe(int source, int tag, MPI_Comm comm, MPI_Status *status);
int MPI_Iprobe(int source, int tag, MPI_Comm comm, int *flag, MPI_Status *status);
int MPI_Get_count(const MPI_Status *status, MPI_Datatype datatype, int *count);
int MPI_Get_elements(const MPI_Status *status, MPI_Datatype datatype, int *count);
int MPI_Buffer_attach(void *buf, int size);
int MPI_Buffer_detach(void *buf, int *size);
int MPI_Start(MPI_Request *request);
int MPI_Startall(int count, MPI_Request requests[]);
int MPI_Status_set_elements(MPI_Status *status, MPI_Datatype datatype, int count);
int MPI_Status_set_cancelled(MPI_Status *status, int flag);
int MPI_Test_cancelled(const MPI_Status *status, int *flag);

/* Completion. */
int MPI_Wait(MPI_Request *request, MPI_Status *status);
int MPI_Test(MPI_Request *request, int *flag, MPI_Status *status);
int MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]);
int MPI_Testall(int count, MPI_Request requests[], int *flag, MPI_Status statuses[]);
int MPI_Waitany(int count, MPI_Request requests[], int *index, MPI_Status *status);
int MPI_Testany(int count, MPI_Request requests[], int *index, int *flag, MPI_Status *status);
int MPI_Waitsome(int count, MPI_Request requests[], int *outcount, int indices[], MPI_Status statuses[]);
int MPI_Testsome(int count, MPI_Request requests[], int *outcount, int indices[], MPI_Status statuses[]);
int MPI_Request_get_status(MPI_Request request, int *flag, MPI_Status *status);
int MPI_Cancel(MPI_Request *request);
int MPI_Request_free(MPI_Request *request);

/* Matched messages. */
int MPI_Mprobe(int source, int tag, MPI_Comm comm, MPI_Message *message, MPI_Status *status);
int MPI_Improbe(int source, int tag, MPI_Comm comm, int *flag, MPI_Message *message, MPI_Status *status);
int MPI_Mrecv(void *buf, int count, MPI_Datatype datatype, MPI_Message *message, MPI_Status *status);
int MPI_Imrecv(void *buf, int count, MPI_Datatype datatype, MPI_Message *message, MPI_Request *request);

/* Collectives. */
int MPI_Barrier(MPI_Comm comm);
int MPI_Ibarrier(MPI_Comm comm, MPI_Request *request);
int MPI_Bcast(void *buf, int count, MPI_Datatype datatype, int root, MPI_Comm comm);
int MPI_Ibcast(void *buf, int count, MPI_Datatype datatype, int root, MPI_Comm comm, MPI_Request *request);
int MPI_Gather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm);
int MPI_Igather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int MPI_Gatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, int root, MPI_Comm comm);
int MPI_Igatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int MPI_Scatter(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm);
int MPI_Iscatter(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int MPI_Scatterv(const void *sendbuf, const int sendcounts[], const int displs[], MPI_Datatype sendtype,
        void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm);
int MPI_Iscatterv(const void *sendbuf, const int sendcounts[], const int displs[], MPI_Datatype sendtype,
        void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int MPI_Allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Iallgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int MPI_Allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Iallgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int MPI_Alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Ialltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int MPI_Alltoallv(const void *sendbuf, const int sendcounts[], const int sdispls[], MPI_Datatype sendtype,
        void *recvbuf, const int recvcounts[], const int rdispls[], MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Ialltoallv(const void *sendbuf, const int sendcounts[], const int sdispls[], MPI_Datatype sendtype,
        void *recvbuf, const int recvcounts[], const int rdispls[], MPI_Datatype recvtype, MPI_Comm comm,
        MPI_Request *request);
int MPI_Alltoallw(const void *sendbuf, const int sendcounts[], const int sdispls[], const MPI_Datatype sendtypes[],
        void *recvbuf, const int recvcounts[], const int rdispls[], const MPI_Datatype recvtypes[], MPI_Comm comm);
int MPI_Ialltoallw(const void *sendbuf, const int sendcounts[], const int sdispls[], const MPI_Datatype sendtypes[],
        void *recvbuf, const int recvcounts[], const int rdispls[], const MPI_Datatype recvtypes[], MPI_Comm comm,
        MPI_Request *request);
int MPI_Reduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm);
int MPI_Ireduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm, MPI_Request *request);
int MPI_Allreduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm);
int MPI_Iallreduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request);
int MPI_Scan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm);
int MPI_Iscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request);
int MPI_Exscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm);
int MPI_Iexscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request);
int MPI_Reduce_scatter(const void *sendbuf, void *recvbuf, const int recvcounts[], MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm);
int MPI_Ireduce_scatter(const void *sendbuf, void *recvbuf, const int recvcounts[], MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm, MPI_Request *request);
int MPI_Reduce_scatter_block(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm);
int MPI_Ireduce_scatter_block(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm, MPI_Request *request);

/* Operations. */
int MPI_Op_create(MPI_User_function *function, int commute, MPI_Op *op);
int MPI_Op_free(MPI_Op *op);
int MPI_Op_commutative(MPI_Op op, int *commute);
int MPI_Reduce_local(const void *inbuf, void *inout, int count, MPI_Datatype datatype, MPI_Op op);

/* Communicators. */
int MPI_Comm_rank(MPI_Comm comm, int *rank);
int MPI_Comm_size(MPI_Comm comm, int *size);
int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *newcomm);
int MPI_Comm_dup_with_info(MPI_Comm comm, MPI_Info info, MPI_Comm *newcomm);
int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *newcomm);
int MPI_Comm_split_type(MPI_Comm comm, int kind, int key, MPI_Info info, MPI_Comm *newcomm);
int MPI_Comm_create(MPI_Comm comm, MPI_Group group, MPI_Comm *newcomm);
int MPI_Comm_create_group(MPI_Comm comm, MPI_Group group, int tag, MPI_Comm *newcomm);
int MPI_Comm_free(MPI_Comm *comm);
int MPI_Comm_disconnect(MPI_Comm *comm);
int MPI_Comm_compare(MPI_Comm first, MPI_Comm second, int *result);
int MPI_Comm_group(MPI_Comm comm, MPI_Group *group);
int MPI_Comm_test_inter(MPI_Comm comm, int *flag);
int MPI_Comm_get_parent(MPI_Comm *parent);
int MPI_Comm_set_name(MPI_Comm comm, const char *name);
int MPI_Comm_get_name(MPI_Comm comm, char *name, int *length);

/* Groups. */
int MPI_Group_size(MPI_Group handle, int *size);
int MPI_Group_rank(MPI_Group handle, int *rank);
int MPI_Group_translate_ranks(MPI_Group first, int count, const int ranks[], MPI_Group second, int results[]);
int MPI_Group_compare(MPI_Group first, MPI_Group second, int *result);
int MPI_Group_union(MPI_Group first, MPI_Group second, MPI_Group *newgroup);
int MPI_Group_intersection(MPI_Group first, MPI_Group second, MPI_Group *newgroup);
int MPI_Group_difference(MPI_Group first, MPI_Group second, MPI_Group *newgroup);
int MPI_Group_incl(MPI_Group handle, int count, const int ranks[], MPI_Group *newgroup);
int MPI_Group_excl(MPI_Group handle, int count, const int ranks[], MPI_Group *newgroup);
int MPI_Group_range_incl(MPI_Group handle, int count, int triplets[][3], MPI_Group *newgroup);
int MPI_Group_range_excl(MPI_Group handle, int count, int triplets[][3], MPI_Group *newgroup);
int MPI_Group_free(MPI_Group *handle);

/* Datatypes. */
int MPI_Type_contiguous(int count, MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_vector(int count, int block, int stride, MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_create_hvector(int count, int block, MPI_Aint stride, MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_hvector(int count, int block, MPI_Aint stride, MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_indexed(int count, const int lengths[], const int displs[], MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_create_hindexed(int count, const int lengths[], const MPI_Aint displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int MPI_Type_hindexed(int count, const int lengths[], const MPI_Aint displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int MPI_Type_create_indexed_block(int count, int block, const int displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int MPI_Type_create_hindexed_block(int count, int block, const MPI_Aint displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int MPI_Type_create_struct(int count, const int lengths[], const MPI_Aint displs[], const MPI_Datatype types[],
        MPI_Datatype *newtype);
int MPI_Type_struct(int count, const int lengths[], const MPI_Aint displs[], const MPI_Datatype types[],
        MPI_Datatype *newtype);
int MPI_Type_create_subarray(int dimensions, const int sizes[], const int subsizes[], const int starts[], int order,
        MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_create_resized(MPI_Datatype oldtype, MPI_Aint lower, MPI_Aint extent, MPI_Datatype *newtype);
int MPI_Type_dup(MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_commit(MPI_Datatype *datatype);
int MPI_Type_free(MPI_Datatype *datatype);
int MPI_Type_size(MPI_Datatype datatype, int *size);
int MPI_Type_size_x(MPI_Datatype datatype, MPI_Count *size);
int MPI_Type_get_extent(MPI_Datatype datatype, MPI_Aint *lower, MPI_Aint *extent);
int MPI_Type_get_extent_x(MPI_Datatype datatype, MPI_Count *lower, MPI_Count *extent);
int MPI_Type_get_true_extent(MPI_Datatype datatype, MPI_Aint *lower, MPI_Aint *extent);
int MPI_Type_get_true_extent_x(MPI_Datatype datatype, MPI_Count *lower, MPI_Count *extent);
int MPI_Type_extent(MPI_Datatype datatype, MPI_Aint *extent);
int MPI_Type_lb(MPI_Datatype datatype, MPI_Aint *lower);
int MPI_Type_ub(MPI_Datatype datatype, MPI_Aint *upper);
int MPI_Get_address(const void *location, MPI_Aint *result);
int MPI_Address(void *location, MPI_Aint *result);
int MPI_Pack(const void *inbuf, int count, MPI_Datatype datatype, void *outbuf, int size, int *position, MPI_Comm comm);
int MPI_Unpack(const void *inbuf, int size, int *position, void *outbuf, int count, MPI_Datatype datatype,
        MPI_Comm comm);
int MPI_Pack_size(int count, MPI_Datatype datatype, MPI_Comm comm, int *size);

/* Attributes. */
int MPI_Comm_create_keyval(MPI_Comm_copy_attr_function *copy, MPI_Comm_delete_attr_function *remove, int *key,
        void *extra);
int MPI_Keyval_create(MPI_Comm_copy_attr_function *copy, MPI_Comm_delete_attr_function *remove, int *key, void *extra);
int MPI_Comm_free_keyval(int *key);
int MPI_Keyval_free(int *key);
int MPI_Comm_set_attr(MPI_Comm comm, int key, void *value);
int MPI_Attr_put(MPI_Comm comm, int key, void *value);
int MPI_Comm_get_attr(MPI_Comm comm, int key, void *value, int *flag);
int MPI_Attr_get(MPI_Comm comm, int key, void *value, int *flag);
int MPI_Comm_delete_attr(MPI_Comm comm, int key);
int MPI_Attr_delete(MPI_Comm comm, int key);

/* Error handlers. */
int MPI_Comm_create_errhandler(MPI_Comm_errhandler_function *function, MPI_Errhandler *handler);
int MPI_Errhandler_create(MPI_Comm_errhandler_function *function, MPI_Errhandler *handler);
int MPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler handler);
int MPI_Errhandler_set(MPI_Comm comm, MPI_Errhandler handler);
int MPI_Comm_get_errhandler(MPI_Comm comm, MPI_Errhandler *handler);
int MPI_Errhandler_get(MPI_Comm comm, MPI_Errhandler *handler);
int MPI_Errhandler_free(MPI_Errhandler *handler);
int MPI_Comm_call_errhandler(MPI_Comm comm, int code);

/* Infos, topologies, groups that talk to each other, and more. */
int MPI_Info_create(MPI_Info *info);
int MPI_Info_create_env(int argc, char **argv, MPI_Info *info);
int MPI_Info_dup(MPI_Info info, MPI_Info *newinfo);
int MPI_Info_free(MPI_Info *info);
int MPI_Info_set(MPI_Info info, const char *name, const char *value);
int MPI_Info_delete(MPI_Info info, const char *name);
int MPI_Info_get(MPI_Info info, const char *name, int length, char *value, int *flag);
int MPI_Info_get_string(MPI_Info info, const char *name, int *length, char *value, int *flag);
int MPI_Info_get_valuelen(MPI_Info info, const char *name, int *length, int *flag);
int MPI_Info_get_nkeys(MPI_Info info, int *number);
int MPI_Info_get_nthkey(MPI_Info info, int number, char *name);
int MPI_Type_create_keyval(MPI_Type_copy_attr_function *copy, MPI_Type_delete_attr_function *remove, int *key, void
        *extra);
int MPI_Type_free_keyval(int *key);
int MPI_Type_set_attr(MPI_Datatype datatype, int key, void *value);
int MPI_Type_get_attr(MPI_Datatype datatype, int key, void *value, int *flag);
int MPI_Type_delete_attr(MPI_Datatype datatype, int key);
int MPI_Add_error_class(int *code);
int MPI_Add_error_code(int of_class, int *code);
int MPI_Add_error_string(int code, const char *text);
int MPI_Remove_error_class(int code);
int MPI_Remove_error_code(int code);
int MPI_Remove_error_string(int code);
int MPI_Grequest_start(MPI_Grequest_query_function *query, MPI_Grequest_free_function *release,
        MPI_Grequest_cancel_function *cancel, void *extra, MPI_Request *request);
int MPI_Grequest_complete(MPI_Request request);
int MPI_Comm_idup(MPI_Comm comm, MPI_Comm *newcomm, MPI_Request *request);
int MPI_Comm_idup_with_info(MPI_Comm comm, MPI_Info info, MPI_Comm *newcomm, MPI_Request *request);
int MPI_Comm_set_info(MPI_Comm comm, MPI_Info info);
int MPI_Comm_get_info(MPI_Comm comm, MPI_Info *used);
int MPI_Comm_remote_size(MPI_Comm comm, int *size);
int MPI_Comm_remote_group(MPI_Comm comm, MPI_Group *group);
int MPI_Intercomm_create(MPI_Comm local, int leader, MPI_Comm peer, int remote_leader, int tag, MPI_Comm *newcomm);
int MPI_Intercomm_merge(MPI_Comm comm, int high, MPI_Comm *newcomm);
int MPI_Dims_create(int nodes, int dimensions, int *dims);
int MPI_Cart_create(MPI_Comm comm, int dimensions, const int *dims, const int *periods, int reorder, MPI_Comm *newcomm);
int MPI_Cart_map(MPI_Comm comm, int dimensions, const int *dims, const int *periods, int *rank);
int MPI_Cartdim_get(MPI_Comm comm, int *dimensions);
int MPI_Cart_get(MPI_Comm comm, int room, int *dims, int *periods, int *coords);
int MPI_Cart_rank(MPI_Comm comm, const int *coords, int *rank);
int MPI_Cart_coords(MPI_Comm comm, int rank, int room, int *coords);
int MPI_Cart_shift(MPI_Comm comm, int dimension, int distance, int *source, int *dest);
int MPI_Cart_sub(MPI_Comm comm, const int *remain, MPI_Comm *newcomm);
int MPI_Graph_create(MPI_Comm comm, int nodes, const int *index, const int *edges, int reorder, MPI_Comm *newcomm);
int MPI_Graph_map(MPI_Comm comm, int nodes, const int *index, const int *edges, int *rank);
int MPI_Graphdims_get(MPI_Comm comm, int *nodes, int *edges);
int MPI_Graph_get(MPI_Comm comm, int room_index, int room_edges, int *index, int *edges);
int MPI_Graph_neighbors_count(MPI_Comm comm, int rank, int *number);
int MPI_Graph_neighbors(MPI_Comm comm, int rank, int room, int *neighbours);
int MPI_Dist_graph_create_adjacent(MPI_Comm comm, int indegree, const int *sources, const int *sourceweights, int
        outdegree, const int *destinations, const int *destweights, MPI_Info hints, int reorder, MPI_Comm *newcomm);
int MPI_Dist_graph_create(MPI_Comm comm, int number, const int *sources, const int *degrees, const int *destinations,
        const int *edge_weights, MPI_Info hints, int reorder, MPI_Comm *newcomm);
int MPI_Dist_graph_neighbors_count(MPI_Comm comm, int *indegree, int *outdegree, int *weighted);
int MPI_Dist_graph_neighbors(MPI_Comm comm, int room_in, int *sources, int *sourceweights, int room_out, int
        *destinations, int *destweights);
int MPI_Topo_test(MPI_Comm comm, int *kind);
int MPI_Type_create_darray(int size, int rank, int dimensions, const int *gsizes, const int *distribs, const int
        *dargs, const int *psizes, int order, MPI_Datatype old, MPI_Datatype *newtype);
int MPI_Type_get_envelope(MPI_Datatype datatype, int *integers, int *addresses, int *types, int *combiner);
int MPI_Type_get_contents(MPI_Datatype datatype, int room_integers, int room_addresses, int room_types, int *integers,
        MPI_Aint *addresses, MPI_Datatype *types);
int MPI_Type_match_size(int kind, int size, MPI_Datatype *datatype);
int MPI_Type_create_f90_integer(int range, MPI_Datatype *newtype);
int MPI_Type_create_f90_real(int precision, int range, MPI_Datatype *newtype);
int MPI_Type_create_f90_complex(int precision, int range, MPI_Datatype *newtype);
int MPI_Type_set_name(MPI_Datatype datatype, const char *name);
int MPI_Type_get_name(MPI_Datatype datatype, char *name, int *length);
int MPI_Pack_external(const char *representation, const void *input, int number, MPI_Datatype datatype, void *output,
        MPI_Aint size, MPI_Aint *position);
int MPI_Unpack_external(const char *representation, const void *input, MPI_Aint size, MPI_Aint *position, void
        *output, int number, MPI_Datatype datatype);
int MPI_Pack_external_size(const char *representation, int number, MPI_Datatype datatype, MPI_Aint *size);
int MPI_Isendrecv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, int dest, int sendtag, void *recvbuf, int
        recvcount, MPI_Datatype recvtype, int source, int recvtag, MPI_Comm comm, MPI_Request *request);
int MPI_Isendrecv_replace(void *buffer, int count, MPI_Datatype datatype, int dest, int sendtag, int source, int
        recvtag, MPI_Comm comm, MPI_Request *request);
int MPI_Get_elements_x(const MPI_Status *status, MPI_Datatype datatype, MPI_Count *number);
int MPI_Status_set_elements_x(MPI_Status *status, MPI_Datatype datatype, MPI_Count number);
int MPI_Barrier_init(MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Bcast_init(void *buffer, int number, MPI_Datatype datatype, int root, MPI_Comm comm, MPI_Info info,
        MPI_Request *request);
int MPI_Gather_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Gatherv_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int *recvcounts,
        const int *displs, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Scatter_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Scatterv_init(const void *sendbuf, const int *sendcounts, const int *displs, MPI_Datatype sendtype, void
        *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Allgather_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Allgatherv_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Alltoall_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Alltoallv_init(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype, void
        *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info,
        MPI_Request *request);
int MPI_Alltoallw_init(const void *sendbuf, const int *sendcounts, const int *sdispls, const MPI_Datatype *sendtypes,
        void *recvbuf, const int *recvcounts, const int *rdispls, const MPI_Datatype *recvtypes, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int MPI_Reduce_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Allreduce_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, MPI_Comm
        comm, MPI_Info info, MPI_Request *request);
int MPI_Scan_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int MPI_Exscan_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int MPI_Reduce_scatter_init(const void *sendbuf, void *recvbuf, const int *recvcounts, MPI_Datatype datatype, MPI_Op
        op, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Reduce_scatter_block_init(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Neighbor_allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Ineighbor_allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int MPI_Neighbor_allgather_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int
        recvcount, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Neighbor_allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Ineighbor_allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int MPI_Neighbor_allgatherv_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Neighbor_alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Ineighbor_alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int MPI_Neighbor_alltoall_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int
        recvcount, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int MPI_Neighbor_alltoallv(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype, void
        *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm);
int MPI_Ineighbor_alltoallv(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype,
        void *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm, MPI_Request
        *request);
int MPI_Neighbor_alltoallv_init(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype,
        void *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info,
        MPI_Request *request);
int MPI_Neighbor_alltoallw(const void *sendbuf, const int *sendcounts, const MPI_Aint *sdispls, const MPI_Datatype
        *sendtypes, void *recvbuf, const int *recvcounts, const MPI_Aint *rdispls, const MPI_Datatype *recvtypes,
        MPI_Comm comm);
int MPI_Ineighbor_alltoallw(const void *sendbuf, const int *sendcounts, const MPI_Aint *sdispls, const MPI_Datatype
        *sendtypes, void *recvbuf, const int *recvcounts, const MPI_Aint *rdispls, const MPI_Datatype *recvtypes,
        MPI_Comm comm, MPI_Request *request);
int MPI_Neighbor_alltoallw_init(const void *sendbuf, const int *sendcounts, const MPI_Aint *sdispls, const
        MPI_Datatype *sendtypes, void *recvbuf, const int *recvcounts, const MPI_Aint *rdispls, const MPI_Datatype
        *recvtypes, MPI_Comm comm, MPI_Info info, MPI_Request *request);

/* The same functions under the names that a profiling library calls. */
int PMPI_Init(int *argc, char ***argv);
int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int PMPI_Query_thread(int *provided);
int PMPI_Is_thread_main(int *flag);
int PMPI_Finalize(void);
int PMPI_Initialized(int *flag);
int PMPI_Finalized(int *flag);
int PMPI_Abort(MPI_Comm comm, int code);
int PMPI_Get_processor_name(char *name, int *length);
int PMPI_Get_version(int *version, int *subversion);
int PMPI_Get_library_version(char *text, int *length);
int PMPI_Abi_get_version(int *version, int *subversion);
int PMPI_Error_string(int code, char *text, int *length);
int PMPI_Error_class(int code, int *errorclass);
int PMPI_Alloc_mem(MPI_Aint size, MPI_Info info, void *pointer);
int PMPI_Free_mem(void *pointer);
int PMPI_Pcontrol(const int level, ...);
double PMPI_Wtime(void);
double PMPI_Wtick(void);
MPI_Aint PMPI_Aint_add(MPI_Aint base, MPI_Aint displacement);
MPI_Aint PMPI_Aint_diff(MPI_Aint first, MPI_Aint second);
int PMPI_Send(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int PMPI_Isend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Send_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Rsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int PMPI_Irsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Rsend_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Ssend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int PMPI_Issend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Ssend_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Bsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm);
int PMPI_Ibsend(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Bsend_init(const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Recv(void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm, MPI_Status *status);
int PMPI_Irecv(void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm, MPI_Request *request);
int PMPI_Recv_init(void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Sendrecv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, int dest, int sendtag, void *recvbuf,
        int recvcount, MPI_Datatype recvtype, int source, int recvtag, MPI_Comm comm, MPI_Status *status);
int PMPI_Sendrecv_replace(void *buf, int count, MPI_Datatype datatype, int dest, int sendtag, int source, int recvtag,
        MPI_Comm comm, MPI_Status *status);
int PMPI_Probe(int source, int tag, MPI_Comm comm, MPI_Status *status);
int PMPI_Iprobe(int source, int tag, MPI_Comm comm, int *flag, MPI_Status *status);
int PMPI_Get_count(const MPI_Status *status, MPI_Datatype datatype, int *count);
int PMPI_Get_elements(const MPI_Status *status, MPI_Datatype datatype, int *count);
int PMPI_Buffer_attach(void *buf, int size);
int PMPI_Buffer_detach(void *buf, int *size);
int PMPI_Start(MPI_Request *request);
int PMPI_Startall(int count, MPI_Request requests[]);
int PMPI_Status_set_elements(MPI_Status *status, MPI_Datatype datatype, int count);
int PMPI_Status_set_cancelled(MPI_Status *status, int flag);
int PMPI_Test_cancelled(const MPI_Status *status, int *flag);
int PMPI_Wait(MPI_Request *request, MPI_Status *status);
int PMPI_Test(MPI_Request *request, int *flag, MPI_Status *status);
int PMPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]);
int PMPI_Testall(int count, MPI_Request requests[], int *flag, MPI_Status statuses[]);
int PMPI_Waitany(int count, MPI_Request requests[], int *index, MPI_Status *status);
int PMPI_Testany(int count, MPI_Request requests[], int *index, int *flag, MPI_Status *status);
int PMPI_Waitsome(int count, MPI_Request requests[], int *outcount, int indices[], MPI_Status statuses[]);
int PMPI_Testsome(int count, MPI_Request requests[], int *outcount, int indices[], MPI_Status statuses[]);
int PMPI_Request_get_status(MPI_Request request, int *flag, MPI_Status *status);
int PMPI_Cancel(MPI_Request *request);
int PMPI_Request_free(MPI_Request *request);
int PMPI_Mprobe(int source, int tag, MPI_Comm comm, MPI_Message *message, MPI_Status *status);
int PMPI_Improbe(int source, int tag, MPI_Comm comm, int *flag, MPI_Message *message, MPI_Status *status);
int PMPI_Mrecv(void *buf, int count, MPI_Datatype datatype, MPI_Message *message, MPI_Status *status);
int PMPI_Imrecv(void *buf, int count, MPI_Datatype datatype, MPI_Message *message, MPI_Request *request);
int PMPI_Barrier(MPI_Comm comm);
int PMPI_Ibarrier(MPI_Comm comm, MPI_Request *request);
int PMPI_Bcast(void *buf, int count, MPI_Datatype datatype, int root, MPI_Comm comm);
int PMPI_Ibcast(void *buf, int count, MPI_Datatype datatype, int root, MPI_Comm comm, MPI_Request *request);
int PMPI_Gather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm);
int PMPI_Igather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int PMPI_Gatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, int root, MPI_Comm comm);
int PMPI_Igatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int PMPI_Scatter(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm);
int PMPI_Iscatter(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int PMPI_Scatterv(const void *sendbuf, const int sendcounts[], const int displs[], MPI_Datatype sendtype,
        void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm);
int PMPI_Iscatterv(const void *sendbuf, const int sendcounts[], const int displs[], MPI_Datatype sendtype,
        void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request);
int PMPI_Allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Iallgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int PMPI_Allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Iallgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int PMPI_Alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Ialltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int PMPI_Alltoallv(const void *sendbuf, const int sendcounts[], const int sdispls[], MPI_Datatype sendtype,
        void *recvbuf, const int recvcounts[], const int rdispls[], MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Ialltoallv(const void *sendbuf, const int sendcounts[], const int sdispls[], MPI_Datatype sendtype,
        void *recvbuf, const int recvcounts[], const int rdispls[], MPI_Datatype recvtype, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Alltoallw(const void *sendbuf, const int sendcounts[], const int sdispls[], const MPI_Datatype sendtypes[],
        void *recvbuf, const int recvcounts[], const int rdispls[], const MPI_Datatype recvtypes[], MPI_Comm comm);
int PMPI_Ialltoallw(const void *sendbuf, const int sendcounts[], const int sdispls[], const MPI_Datatype sendtypes[],
        void *recvbuf, const int recvcounts[], const int rdispls[], const MPI_Datatype recvtypes[], MPI_Comm comm,
        MPI_Request *request);
int PMPI_Reduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm);
int PMPI_Ireduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm, MPI_Request *request);
int PMPI_Allreduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm);
int PMPI_Iallreduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Scan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm);
int PMPI_Iscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Exscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm);
int PMPI_Iexscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request);
int PMPI_Reduce_scatter(const void *sendbuf, void *recvbuf, const int recvcounts[], MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm);
int PMPI_Ireduce_scatter(const void *sendbuf, void *recvbuf, const int recvcounts[], MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm, MPI_Request *request);
int PMPI_Reduce_scatter_block(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm);
int PMPI_Ireduce_scatter_block(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype datatype, MPI_Op op,
        MPI_Comm comm, MPI_Request *request);
int PMPI_Op_create(MPI_User_function *function, int commute, MPI_Op *op);
int PMPI_Op_free(MPI_Op *op);
int PMPI_Op_commutative(MPI_Op op, int *commute);
int PMPI_Reduce_local(const void *inbuf, void *inout, int count, MPI_Datatype datatype, MPI_Op op);
int PMPI_Comm_rank(MPI_Comm comm, int *rank);
int PMPI_Comm_size(MPI_Comm comm, int *size);
int PMPI_Comm_dup(MPI_Comm comm, MPI_Comm *newcomm);
int PMPI_Comm_dup_with_info(MPI_Comm comm, MPI_Info info, MPI_Comm *newcomm);
int PMPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *newcomm);
int PMPI_Comm_split_type(MPI_Comm comm, int kind, int key, MPI_Info info, MPI_Comm *newcomm);
int PMPI_Comm_create(MPI_Comm comm, MPI_Group group, MPI_Comm *newcomm);
int PMPI_Comm_create_group(MPI_Comm comm, MPI_Group group, int tag, MPI_Comm *newcomm);
int PMPI_Comm_free(MPI_Comm *comm);
int PMPI_Comm_disconnect(MPI_Comm *comm);
int PMPI_Comm_compare(MPI_Comm first, MPI_Comm second, int *result);
int PMPI_Comm_group(MPI_Comm comm, MPI_Group *group);
int PMPI_Comm_test_inter(MPI_Comm comm, int *flag);
int PMPI_Comm_get_parent(MPI_Comm *parent);
int PMPI_Comm_set_name(MPI_Comm comm, const char *name);
int PMPI_Comm_get_name(MPI_Comm comm, char *name, int *length);
int PMPI_Group_size(MPI_Group handle, int *size);
int PMPI_Group_rank(MPI_Group handle, int *rank);
int PMPI_Group_translate_ranks(MPI_Group first, int count, const int ranks[], MPI_Group second, int results[]);
int PMPI_Group_compare(MPI_Group first, MPI_Group second, int *result);
int PMPI_Group_union(MPI_Group first, MPI_Group second, MPI_Group *newgroup);
int PMPI_Group_intersection(MPI_Group first, MPI_Group second, MPI_Group *newgroup);
int PMPI_Group_difference(MPI_Group first, MPI_Group second, MPI_Group *newgroup);
int PMPI_Group_incl(MPI_Group handle, int count, const int ranks[], MPI_Group *newgroup);
int PMPI_Group_excl(MPI_Group handle, int count, const int ranks[], MPI_Group *newgroup);
int PMPI_Group_range_incl(MPI_Group handle, int count, int triplets[][3], MPI_Group *newgroup);
int PMPI_Group_range_excl(MPI_Group handle, int count, int triplets[][3], MPI_Group *newgroup);
int PMPI_Group_free(MPI_Group *handle);
int PMPI_Type_contiguous(int count, MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_vector(int count, int block, int stride, MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_create_hvector(int count, int block, MPI_Aint stride, MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_hvector(int count, int block, MPI_Aint stride, MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_indexed(int count, const int lengths[], const int displs[], MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_create_hindexed(int count, const int lengths[], const MPI_Aint displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int PMPI_Type_hindexed(int count, const int lengths[], const MPI_Aint displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int PMPI_Type_create_indexed_block(int count, int block, const int displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int PMPI_Type_create_hindexed_block(int count, int block, const MPI_Aint displs[], MPI_Datatype oldtype,
        MPI_Datatype *newtype);
int PMPI_Type_create_struct(int count, const int lengths[], const MPI_Aint displs[], const MPI_Datatype types[],
        MPI_Datatype *newtype);
int PMPI_Type_struct(int count, const int lengths[], const MPI_Aint displs[], const MPI_Datatype types[],
        MPI_Datatype *newtype);
int PMPI_Type_create_subarray(int dimensions, const int sizes[], const int subsizes[], const int starts[], int order,
        MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_create_resized(MPI_Datatype oldtype, MPI_Aint lower, MPI_Aint extent, MPI_Datatype *newtype);
int PMPI_Type_dup(MPI_Datatype oldtype, MPI_Datatype *newtype);
int PMPI_Type_commit(MPI_Datatype *datatype);
int PMPI_Type_free(MPI_Datatype *datatype);
int PMPI_Type_size(MPI_Datatype datatype, int *size);
int PMPI_Type_size_x(MPI_Datatype datatype, MPI_Count *size);
int PMPI_Type_get_extent(MPI_Datatype datatype, MPI_Aint *lower, MPI_Aint *extent);
int PMPI_Type_get_extent_x(MPI_Datatype datatype, MPI_Count *lower, MPI_Count *extent);
int PMPI_Type_get_true_extent(MPI_Datatype datatype, MPI_Aint *lower, MPI_Aint *extent);
int PMPI_Type_get_true_extent_x(MPI_Datatype datatype, MPI_Count *lower, MPI_Count *extent);
int PMPI_Type_extent(MPI_Datatype datatype, MPI_Aint *extent);
int PMPI_Type_lb(MPI_Datatype datatype, MPI_Aint *lower);
int PMPI_Type_ub(MPI_Datatype datatype, MPI_Aint *upper);
int PMPI_Get_address(const void *location, MPI_Aint *result);
int PMPI_Address(void *location, MPI_Aint *result);
int PMPI_Pack(const void *inbuf, int count, MPI_Datatype datatype, void *outbuf, int size, int *position,
        MPI_Comm comm);
int PMPI_Unpack(const void *inbuf, int size, int *position, void *outbuf, int count, MPI_Datatype datatype,
        MPI_Comm comm);
int PMPI_Pack_size(int count, MPI_Datatype datatype, MPI_Comm comm, int *size);
int PMPI_Comm_create_keyval(MPI_Comm_copy_attr_function *copy, MPI_Comm_delete_attr_function *remove, int *key,
        void *extra);
int PMPI_Keyval_create(MPI_Comm_copy_attr_function *copy, MPI_Comm_delete_attr_function *remove, int *key, void *extra);
int PMPI_Comm_free_keyval(int *key);
int PMPI_Keyval_free(int *key);
int PMPI_Comm_set_attr(MPI_Comm comm, int key, void *value);
int PMPI_Attr_put(MPI_Comm comm, int key, void *value);
int PMPI_Comm_get_attr(MPI_Comm comm, int key, void *value, int *flag);
int PMPI_Attr_get(MPI_Comm comm, int key, void *value, int *flag);
int PMPI_Comm_delete_attr(MPI_Comm comm, int key);
int PMPI_Attr_delete(MPI_Comm comm, int key);
int PMPI_Comm_create_errhandler(MPI_Comm_errhandler_function *function, MPI_Errhandler *handler);
int PMPI_Errhandler_create(MPI_Comm_errhandler_function *function, MPI_Errhandler *handler);
int PMPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler handler);
int PMPI_Errhandler_set(MPI_Comm comm, MPI_Errhandler handler);
int PMPI_Comm_get_errhandler(MPI_Comm comm, MPI_Errhandler *handler);
int PMPI_Errhandler_get(MPI_Comm comm, MPI_Errhandler *handler);
int PMPI_Errhandler_free(MPI_Errhandler *handler);
int PMPI_Comm_call_errhandler(MPI_Comm comm, int code);
int PMPI_Info_create(MPI_Info *info);
int PMPI_Info_create_env(int argc, char **argv, MPI_Info *info);
int PMPI_Info_dup(MPI_Info info, MPI_Info *newinfo);
int PMPI_Info_free(MPI_Info *info);
int PMPI_Info_set(MPI_Info info, const char *name, const char *value);
int PMPI_Info_delete(MPI_Info info, const char *name);
int PMPI_Info_get(MPI_Info info, const char *name, int length, char *value, int *flag);
int PMPI_Info_get_string(MPI_Info info, const char *name, int *length, char *value, int *flag);
int PMPI_Info_get_valuelen(MPI_Info info, const char *name, int *length, int *flag);
int PMPI_Info_get_nkeys(MPI_Info info, int *number);
int PMPI_Info_get_nthkey(MPI_Info info, int number, char *name);
int PMPI_Type_create_keyval(MPI_Type_copy_attr_function *copy, MPI_Type_delete_attr_function *remove, int *key, void
        *extra);
int PMPI_Type_free_keyval(int *key);
int PMPI_Type_set_attr(MPI_Datatype datatype, int key, void *value);
int PMPI_Type_get_attr(MPI_Datatype datatype, int key, void *value, int *flag);
int PMPI_Type_delete_attr(MPI_Datatype datatype, int key);
int PMPI_Add_error_class(int *code);
int PMPI_Add_error_code(int of_class, int *code);
int PMPI_Add_error_string(int code, const char *text);
int PMPI_Remove_error_class(int code);
int PMPI_Remove_error_code(int code);
int PMPI_Remove_error_string(int code);
int PMPI_Grequest_start(MPI_Grequest_query_function *query, MPI_Grequest_free_function *release,
        MPI_Grequest_cancel_function *cancel, void *extra, MPI_Request *request);
int PMPI_Grequest_complete(MPI_Request request);
int PMPI_Comm_idup(MPI_Comm comm, MPI_Comm *newcomm, MPI_Request *request);
int PMPI_Comm_idup_with_info(MPI_Comm comm, MPI_Info info, MPI_Comm *newcomm, MPI_Request *request);
int PMPI_Comm_set_info(MPI_Comm comm, MPI_Info info);
int PMPI_Comm_get_info(MPI_Comm comm, MPI_Info *used);
int PMPI_Comm_remote_size(MPI_Comm comm, int *size);
int PMPI_Comm_remote_group(MPI_Comm comm, MPI_Group *group);
int PMPI_Intercomm_create(MPI_Comm local, int leader, MPI_Comm peer, int remote_leader, int tag, MPI_Comm *newcomm);
int PMPI_Intercomm_merge(MPI_Comm comm, int high, MPI_Comm *newcomm);
int PMPI_Dims_create(int nodes, int dimensions, int *dims);
int PMPI_Cart_create(MPI_Comm comm, int dimensions, const int *dims, const int *periods, int reorder, MPI_Comm *newcomm);
int PMPI_Cart_map(MPI_Comm comm, int dimensions, const int *dims, const int *periods, int *rank);
int PMPI_Cartdim_get(MPI_Comm comm, int *dimensions);
int PMPI_Cart_get(MPI_Comm comm, int room, int *dims, int *periods, int *coords);
int PMPI_Cart_rank(MPI_Comm comm, const int *coords, int *rank);
int PMPI_Cart_coords(MPI_Comm comm, int rank, int room, int *coords);
int PMPI_Cart_shift(MPI_Comm comm, int dimension, int distance, int *source, int *dest);
int PMPI_Cart_sub(MPI_Comm comm, const int *remain, MPI_Comm *newcomm);
int PMPI_Graph_create(MPI_Comm comm, int nodes, const int *index, const int *edges, int reorder, MPI_Comm *newcomm);
int PMPI_Graph_map(MPI_Comm comm, int nodes, const int *index, const int *edges, int *rank);
int PMPI_Graphdims_get(MPI_Comm comm, int *nodes, int *edges);
int PMPI_Graph_get(MPI_Comm comm, int room_index, int room_edges, int *index, int *edges);
int PMPI_Graph_neighbors_count(MPI_Comm comm, int rank, int *number);
int PMPI_Graph_neighbors(MPI_Comm comm, int rank, int room, int *neighbours);
int PMPI_Dist_graph_create_adjacent(MPI_Comm comm, int indegree, const int *sources, const int *sourceweights, int
        outdegree, const int *destinations, const int *destweights, MPI_Info hints, int reorder, MPI_Comm *newcomm);
int PMPI_Dist_graph_create(MPI_Comm comm, int number, const int *sources, const int *degrees, const int *destinations,
        const int *edge_weights, MPI_Info hints, int reorder, MPI_Comm *newcomm);
int PMPI_Dist_graph_neighbors_count(MPI_Comm comm, int *indegree, int *outdegree, int *weighted);
int PMPI_Dist_graph_neighbors(MPI_Comm comm, int room_in, int *sources, int *sourceweights, int room_out, int
        *destinations, int *destweights);
int PMPI_Topo_test(MPI_Comm comm, int *kind);
int PMPI_Type_create_darray(int size, int rank, int dimensions, const int *gsizes, const int *distribs, const int
        *dargs, const int *psizes, int order, MPI_Datatype old, MPI_Datatype *newtype);
int PMPI_Type_get_envelope(MPI_Datatype datatype, int *integers, int *addresses, int *types, int *combiner);
int PMPI_Type_get_contents(MPI_Datatype datatype, int room_integers, int room_addresses, int room_types, int
        *integers, MPI_Aint *addresses, MPI_Datatype *types);
int PMPI_Type_match_size(int kind, int size, MPI_Datatype *datatype);
int PMPI_Type_create_f90_integer(int range, MPI_Datatype *newtype);
int PMPI_Type_create_f90_real(int precision, int range, MPI_Datatype *newtype);
int PMPI_Type_create_f90_complex(int precision, int range, MPI_Datatype *newtype);
int PMPI_Type_set_name(MPI_Datatype datatype, const char *name);
int PMPI_Type_get_name(MPI_Datatype datatype, char *name, int *length);
int PMPI_Pack_external(const char *representation, const void *input, int number, MPI_Datatype datatype, void *output,
        MPI_Aint size, MPI_Aint *position);
int PMPI_Unpack_external(const char *representation, const void *input, MPI_Aint size, MPI_Aint *position, void
        *output, int number, MPI_Datatype datatype);
int PMPI_Pack_external_size(const char *representation, int number, MPI_Datatype datatype, MPI_Aint *size);
int PMPI_Isendrecv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, int dest, int sendtag, void *recvbuf,
        int recvcount, MPI_Datatype recvtype, int source, int recvtag, MPI_Comm comm, MPI_Request *request);
int PMPI_Isendrecv_replace(void *buffer, int count, MPI_Datatype datatype, int dest, int sendtag, int source, int
        recvtag, MPI_Comm comm, MPI_Request *request);
int PMPI_Get_elements_x(const MPI_Status *status, MPI_Datatype datatype, MPI_Count *number);
int PMPI_Status_set_elements_x(MPI_Status *status, MPI_Datatype datatype, MPI_Count number);
int PMPI_Barrier_init(MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Bcast_init(void *buffer, int number, MPI_Datatype datatype, int root, MPI_Comm comm, MPI_Info info,
        MPI_Request *request);
int PMPI_Gather_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Gatherv_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int *recvcounts,
        const int *displs, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Scatter_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Scatterv_init(const void *sendbuf, const int *sendcounts, const int *displs, MPI_Datatype sendtype, void
        *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Allgather_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Allgatherv_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Alltoall_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Alltoallv_init(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype, void
        *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info,
        MPI_Request *request);
int PMPI_Alltoallw_init(const void *sendbuf, const int *sendcounts, const int *sdispls, const MPI_Datatype *sendtypes,
        void *recvbuf, const int *recvcounts, const int *rdispls, const MPI_Datatype *recvtypes, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int PMPI_Reduce_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Allreduce_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, MPI_Comm
        comm, MPI_Info info, MPI_Request *request);
int PMPI_Scan_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int PMPI_Exscan_init(const void *sendbuf, void *recvbuf, int number, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int PMPI_Reduce_scatter_init(const void *sendbuf, void *recvbuf, const int *recvcounts, MPI_Datatype datatype, MPI_Op
        op, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Reduce_scatter_block_init(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype datatype, MPI_Op
        op, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Neighbor_allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Ineighbor_allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int PMPI_Neighbor_allgather_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int
        recvcount, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Neighbor_allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Ineighbor_allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int PMPI_Neighbor_allgatherv_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int
        *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Neighbor_alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Ineighbor_alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request);
int PMPI_Neighbor_alltoall_init(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int
        recvcount, MPI_Datatype recvtype, MPI_Comm comm, MPI_Info info, MPI_Request *request);
int PMPI_Neighbor_alltoallv(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype,
        void *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm);
int PMPI_Ineighbor_alltoallv(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype,
        void *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm, MPI_Request
        *request);
int PMPI_Neighbor_alltoallv_init(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype
        sendtype, void *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm,
        MPI_Info info, MPI_Request *request);
int PMPI_Neighbor_alltoallw(const void *sendbuf, const int *sendcounts, const MPI_Aint *sdispls, const MPI_Datatype
        *sendtypes, void *recvbuf, const int *recvcounts, const MPI_Aint *rdispls, const MPI_Datatype *recvtypes,
        MPI_Comm comm);
int PMPI_Ineighbor_alltoallw(const void *sendbuf, const int *sendcounts, const MPI_Aint *sdispls, const MPI_Datatype
        *sendtypes, void *recvbuf, const int *recvcounts, const MPI_Aint *rdispls, const MPI_Datatype *recvtypes,
        MPI_Comm comm, MPI_Request *request);
int PMPI_Neighbor_alltoallw_init(const void *sendbuf, const int *sendcounts, const MPI_Aint *sdispls, const
        MPI_Datatype *sendtypes, void *recvbuf, const int *recvcounts, const MPI_Aint *rdispls, const MPI_Datatype
        *recvtypes, MPI_Comm comm, MPI_Info info, MPI_Request *request);

/* Handles in Fortran have the same numbers. */
#define MPI_Comm_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Comm)(handle))
#define MPI_Comm_f2c(handle) ((MPI_Comm)(intptr_t)(MPI_Fint)(handle))
#define MPI_Comm_toint(handle) ((int)(intptr_t)(MPI_Comm)(handle))
#define MPI_Comm_fromint(handle) ((MPI_Comm)(intptr_t)(int)(handle))
#define MPI_Errhandler_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Errhandler)(handle))
#define MPI_Errhandler_f2c(handle) ((MPI_Errhandler)(intptr_t)(MPI_Fint)(handle))
#define MPI_Errhandler_toint(handle) ((int)(intptr_t)(MPI_Errhandler)(handle))
#define MPI_Errhandler_fromint(handle) ((MPI_Errhandler)(intptr_t)(int)(handle))
#define MPI_Group_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Group)(handle))
#define MPI_Group_f2c(handle) ((MPI_Group)(intptr_t)(MPI_Fint)(handle))
#define MPI_Group_toint(handle) ((int)(intptr_t)(MPI_Group)(handle))
#define MPI_Group_fromint(handle) ((MPI_Group)(intptr_t)(int)(handle))
#define MPI_Info_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Info)(handle))
#define MPI_Info_f2c(handle) ((MPI_Info)(intptr_t)(MPI_Fint)(handle))
#define MPI_Info_toint(handle) ((int)(intptr_t)(MPI_Info)(handle))
#define MPI_Info_fromint(handle) ((MPI_Info)(intptr_t)(int)(handle))
#define MPI_Message_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Message)(handle))
#define MPI_Message_f2c(handle) ((MPI_Message)(intptr_t)(MPI_Fint)(handle))
#define MPI_Message_toint(handle) ((int)(intptr_t)(MPI_Message)(handle))
#define MPI_Message_fromint(handle) ((MPI_Message)(intptr_t)(int)(handle))
#define MPI_Op_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Op)(handle))
#define MPI_Op_f2c(handle) ((MPI_Op)(intptr_t)(MPI_Fint)(handle))
#define MPI_Op_toint(handle) ((int)(intptr_t)(MPI_Op)(handle))
#define MPI_Op_fromint(handle) ((MPI_Op)(intptr_t)(int)(handle))
#define MPI_Request_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Request)(handle))
#define MPI_Request_f2c(handle) ((MPI_Request)(intptr_t)(MPI_Fint)(handle))
#define MPI_Request_toint(handle) ((int)(intptr_t)(MPI_Request)(handle))
#define MPI_Request_fromint(handle) ((MPI_Request)(intptr_t)(int)(handle))
#define MPI_Type_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_Datatype)(handle))
#define MPI_Type_f2c(handle) ((MPI_Datatype)(intptr_t)(MPI_Fint)(handle))
#define MPI_Type_toint(handle) ((int)(intptr_t)(MPI_Datatype)(handle))
#define MPI_Type_fromint(handle) ((MPI_Datatype)(intptr_t)(int)(handle))

#define PMPI_Comm_c2f(handle) MPI_Comm_c2f(handle)
#define PMPI_Comm_f2c(handle) MPI_Comm_f2c(handle)
#define PMPI_Errhandler_c2f(handle) MPI_Errhandler_c2f(handle)
#define PMPI_Errhandler_f2c(handle) MPI_Errhandler_f2c(handle)
#define PMPI_Group_c2f(handle) MPI_Group_c2f(handle)
#define PMPI_Group_f2c(handle) MPI_Group_f2c(handle)
#define PMPI_Info_c2f(handle) MPI_Info_c2f(handle)
#define PMPI_Info_f2c(handle) MPI_Info_f2c(handle)
#define PMPI_Message_c2f(handle) MPI_Message_c2f(handle)
#define PMPI_Message_f2c(handle) MPI_Message_f2c(handle)
#define PMPI_Op_c2f(handle) MPI_Op_c2f(handle)
#define PMPI_Op_f2c(handle) MPI_Op_f2c(handle)
#define PMPI_Request_c2f(handle) MPI_Request_c2f(handle)
#define PMPI_Request_f2c(handle) MPI_Request_f2c(handle)
#define PMPI_Type_c2f(handle) MPI_Type_c2f(handle)
#define PMPI_Type_f2c(handle) MPI_Type_f2c(handle)

#ifdef PARTITA_RSMPI
#include <mpi_rsmpi.h>
#endif

#ifdef __cplusplus
}
#endif

#endif
