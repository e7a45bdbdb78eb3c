/* Tracing of the simulator: nothing. */
#define TRACE_smpi_set_category(name) ((void)(name))
