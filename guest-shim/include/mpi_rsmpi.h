/*
 * What the bindings of the Rust crate "mpi" mention and this library does not have. Only mpi.h includes this file, when
 * PARTITA_RSMPI is defined. A program that uses one of these functions does not link, and the linker names the function.
 */
#ifndef PARTITA_MPI_RSMPI_H
#define PARTITA_MPI_RSMPI_H

typedef struct MPI_ABI_Win *MPI_Win;
typedef struct MPI_ABI_File *MPI_File;

#define MPI_WIN_NULL      ((MPI_Win)0x110)
#define MPI_FILE_NULL     ((MPI_File)0x118)
#define MPI_ARGV_NULL     ((char **)0)
#define MPI_ARGVS_NULL    ((char ***)0)
#define MPI_ERRCODES_IGNORE ((int *)0)
#define MPI_UNWEIGHTED    ((int *)10)
#define MPI_WEIGHTS_EMPTY ((int *)11)

enum { MPI_CART = 211, MPI_GRAPH = 212, MPI_DIST_GRAPH = 213 };
enum { MPI_DISTRIBUTE_NONE = 16, MPI_DISTRIBUTE_BLOCK = 17, MPI_DISTRIBUTE_CYCLIC = 18, MPI_DISTRIBUTE_DFLT_DARG = 19 };

#define MPI_File_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_File)(handle))
#define MPI_File_f2c(handle) ((MPI_File)(intptr_t)(MPI_Fint)(handle))
#define MPI_Win_c2f(handle)  ((MPI_Fint)(intptr_t)(MPI_Win)(handle))
#define MPI_Win_f2c(handle)  ((MPI_Win)(intptr_t)(MPI_Fint)(handle))

int MPI_Cart_coords(MPI_Comm comm, int rank, int maxdims, int coords[]);
int MPI_Cart_create(MPI_Comm comm, int ndims, const int dims[], const int periods[], int reorder, MPI_Comm *newcomm);
int MPI_Cart_get(MPI_Comm comm, int maxdims, int dims[], int periods[], int coords[]);
int MPI_Cart_map(MPI_Comm comm, int ndims, const int dims[], const int periods[], int *newrank);
int MPI_Cart_rank(MPI_Comm comm, const int coords[], int *rank);
int MPI_Cart_shift(MPI_Comm comm, int direction, int disp, int *source, int *dest);
int MPI_Cart_sub(MPI_Comm comm, const int remain_dims[], MPI_Comm *newcomm);
int MPI_Cartdim_get(MPI_Comm comm, int *ndims);
int MPI_Comm_get_info(MPI_Comm comm, MPI_Info *info);
int MPI_Comm_idup(MPI_Comm comm, MPI_Comm *newcomm, MPI_Request *request);
int MPI_Comm_remote_group(MPI_Comm comm, MPI_Group *group);
int MPI_Comm_remote_size(MPI_Comm comm, int *size);
int MPI_Comm_set_info(MPI_Comm comm, MPI_Info info);
int MPI_Comm_spawn(const char *command, char *argv[], int maxprocs, MPI_Info info, int root, MPI_Comm comm,
        MPI_Comm *intercomm, int errcodes[]);
int MPI_Comm_spawn_multiple(int count, char *commands[], char **argvs[], const int maxprocs[], const MPI_Info infos[],
        int root, MPI_Comm comm, MPI_Comm *intercomm, int errcodes[]);
int MPI_Get_elements_x(const MPI_Status *status, MPI_Datatype datatype, MPI_Count *count);
int MPI_Intercomm_merge(MPI_Comm intercomm, int high, MPI_Comm *newcomm);
int MPI_Pack_external(const char datarep[], const void *inbuf, int incount, MPI_Datatype datatype, void *outbuf,
        MPI_Aint outsize, MPI_Aint *position);
int MPI_Pack_external_size(const char datarep[], int incount, MPI_Datatype datatype, MPI_Aint *size);
int MPI_Topo_test(MPI_Comm comm, int *status);
int MPI_Type_create_darray(int size, int rank, int ndims, const int gsizes[], const int distribs[], const int dargs[],
        const int psizes[], int order, MPI_Datatype oldtype, MPI_Datatype *newtype);
int MPI_Type_get_contents(MPI_Datatype datatype, int max_integers, int max_addresses, int max_datatypes,
        int integers[], MPI_Aint addresses[], MPI_Datatype datatypes[]);
int MPI_Type_get_envelope(MPI_Datatype datatype, int *integers, int *addresses, int *datatypes, int *combiner);
int MPI_Unpack_external(const char datarep[], const void *inbuf, MPI_Aint insize, MPI_Aint *position, void *outbuf,
        int outcount, MPI_Datatype datatype);

#endif
