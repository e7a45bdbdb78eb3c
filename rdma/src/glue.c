/*
 * The part of libfabric that Partita uses, as a few plain functions.
 *
 * libfabric's calls are static inline functions over tables of function pointers, so only C can make them; the six functions
 * that it exports are looked up when they are first needed, so a program runs on hosts that do not have it. Every int
 * that is returned is 0 or a count, or a negative error number of libfabric.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(PARTITA_WANT_LIBFABRIC) && __has_include(<rdma/fi_rma.h>)
#define HAVE_LIBFABRIC
#endif

/* Not numbers of libfabric, which are below 1024. */
enum { NOT_BUILT = -10001, NOT_INSTALLED = -10002, NO_PROVIDER = -10003 };

enum { TEXT_BYTES = 256, NAME_BYTES = 64, ADDRESS_BYTES = 256 };

/* What is asked for; the same struct is in fabric.rs. */
struct wish {
    const uint8_t *ip;    /* of this host, as the other one reaches it */
    size_t ip_bytes;      /* 4 or 16 */
    const char *provider; /* NULL: what libfabric prefers */
    uint32_t format;      /* of addresses; 0: any */
    int32_t ordered_read; /* do not use FI_DELIVERY_COMPLETE even if it is there */
    uint64_t message_bytes;
};

/* What was chosen; the same struct is in fabric.rs. */
struct facts {
    char provider[NAME_BYTES];
    uint32_t format;
    int32_t delivery_complete; /* else visibility is proved by an ordered read */
    int32_t virtual_addresses; /* remote addresses are virtual ones of the other side, not offsets */
    int32_t bound_memory;      /* registrations belong to the endpoint and are closed before it */
    uint64_t key_mask;         /* bits that a requested key may have; 0: keys are not requested */
    uint64_t address_bytes;
    uint8_t address[ADDRESS_BYTES];
};

#ifdef HAVE_LIBFABRIC

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

struct fabric {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    fi_addr_t peer;
    int delivery_complete;
    int waits;
};

static struct {
    char error[TEXT_BYTES];
    uint32_t (*version)(void);
    int (*getinfo)(uint32_t, const char *, const char *, uint64_t, const struct fi_info *, struct fi_info **);
    void (*freeinfo)(struct fi_info *);
    struct fi_info *(*dupinfo)(const struct fi_info *);
    int (*fabric)(struct fi_fabric_attr *, struct fid_fabric **, void *);
    const char *(*strerror)(int);
} library;

static void load(void)
{
    void *handle = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *error = dlerror();
        snprintf(library.error, TEXT_BYTES, "%s", error ? error : "unknown");
        return;
    }
    *(void **)&library.version = dlsym(handle, "fi_version");
    *(void **)&library.getinfo = dlsym(handle, "fi_getinfo");
    *(void **)&library.freeinfo = dlsym(handle, "fi_freeinfo");
    *(void **)&library.dupinfo = dlsym(handle, "fi_dupinfo");
    *(void **)&library.fabric = dlsym(handle, "fi_fabric");
    *(void **)&library.strerror = dlsym(handle, "fi_strerror");
    if (!library.version || !library.getinfo || !library.freeinfo || !library.dupinfo || !library.fabric ||
        !library.strerror) {
        snprintf(library.error, TEXT_BYTES, "libfabric.so.1 lacks a function");
        return;
    }
    /* Within a major version structs only grow at their end; the library itself allocates them all. */
    uint32_t version = library.version();
    if (FI_MAJOR(version) != FI_MAJOR_VERSION || FI_MINOR(version) < FI_MINOR_VERSION)
        snprintf(library.error, TEXT_BYTES, "libfabric.so.1 is version %u.%u, this was built for %u.%u",
                 FI_MAJOR(version), FI_MINOR(version), FI_MAJOR_VERSION, FI_MINOR_VERSION);
}

static int loaded(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return library.error[0] == 0;
}

/* What a negative number means. */
void partita_rdma_text(int error, char *text)
{
    if (error == NOT_INSTALLED)
        snprintf(text, TEXT_BYTES, "%s", library.error);
    else if (loaded())
        snprintf(text, TEXT_BYTES, "%s", library.strerror(-error));
}

/* The providers that can do what is needed, in libfabric's order; with op_flags and msg_order as a sender needs them. */
static int list(const struct wish *wish, uint64_t op_flags, uint64_t order, struct fi_info **found)
{
    struct fi_info *hints = library.dupinfo(NULL);
    if (!hints)
        return -FI_ENOMEM;
    hints->caps = FI_MSG | FI_RMA | FI_LOCAL_COMM | FI_REMOTE_COMM;
    hints->addr_format = wish->format;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
    hints->tx_attr->op_flags = op_flags;
    hints->tx_attr->msg_order = order;
    if (wish->provider)
        hints->fabric_attr->prov_name = strdup(wish->provider);
    int result = library.getinfo(FI_VERSION(FI_MAJOR_VERSION, FI_MINOR_VERSION), NULL, NULL, 0, hints, found);
    library.freeinfo(hints);
    if (result == -FI_ENODATA) {
        *found = NULL;
        return 0;
    }
    return result;
}

/* Whether it sends from the wished address; formats without an IP address have nothing to compare. */
static int suits(const struct fi_info *info, const struct wish *wish)
{
    const void *ip = NULL;
    size_t bytes = 0;
    if (wish->provider && strcmp(info->fabric_attr->prov_name, wish->provider))
        return 0;
    if ((wish->format && info->addr_format != wish->format) || info->ep_attr->max_msg_size < wish->message_bytes)
        return 0;
    if (info->addr_format == FI_SOCKADDR_IN || info->addr_format == FI_SOCKADDR_IN6 || info->addr_format == FI_SOCKADDR) {
        const struct sockaddr *address = info->src_addr;
        if (!address)
            return 0;
        if (address->sa_family == AF_INET) {
            ip = &((const struct sockaddr_in *)address)->sin_addr;
            bytes = 4;
        } else if (address->sa_family == AF_INET6) {
            ip = &((const struct sockaddr_in6 *)address)->sin6_addr;
            bytes = 16;
        }
        return bytes == wish->ip_bytes && !memcmp(ip, wish->ip, bytes);
    }
    return 1;
}

static int same(const char *left, const char *right)
{
    return left && right ? !strcmp(left, right) : left == right;
}

/* The entry of a list that is of the same provider, interface and format. */
static const struct fi_info *find(const struct fi_info *list, const struct fi_info *like, const struct wish *wish)
{
    for (; list; list = list->next)
        if (suits(list, wish) && list->addr_format == like->addr_format &&
            same(list->fabric_attr->prov_name, like->fabric_attr->prov_name) &&
            same(list->domain_attr->name, like->domain_attr->name))
            return list;
    return NULL;
}

/* The first provider that suits and can prove that what it wrote is visible there. */
static int choose(struct fabric *fabric, const struct wish *wish)
{
    struct fi_info *all = NULL, *complete = NULL, *ordered = NULL;
    int result = list(wish, 0, 0, &all);
    if (!result && !wish->ordered_read)
        result = list(wish, FI_DELIVERY_COMPLETE, 0, &complete);
    if (!result)
        result = list(wish, 0, FI_ORDER_RAW, &ordered);
    for (const struct fi_info *info = all; !result && info && !fabric->info; info = info->next) {
        const struct fi_info *chosen = NULL;
        if (!suits(info, wish))
            continue;
        if ((chosen = find(complete, info, wish)))
            fabric->delivery_complete = 1;
        else
            chosen = find(ordered, info, wish);
        if (chosen && !(fabric->info = library.dupinfo(chosen)))
            result = -FI_ENOMEM;
    }
    if (all)
        library.freeinfo(all);
    if (complete)
        library.freeinfo(complete);
    if (ordered)
        library.freeinfo(ordered);
    return result ? result : fabric->info ? 0 : NO_PROVIDER;
}

static int start(struct fabric *fabric)
{
    struct fi_info *info = fabric->info;
    struct fi_av_attr av = {.type = info->domain_attr->av_type};
    struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_UNSPEC, .size = 1024};
    int result = library.fabric(info->fabric_attr, &fabric->fabric, NULL);
    if (!result)
        result = fi_domain(fabric->fabric, info, &fabric->domain, NULL);
    if (!result)
        result = fi_av_open(fabric->domain, &av, &fabric->av, NULL);
    if (!result) {
        fabric->waits = !fi_cq_open(fabric->domain, &cq, &fabric->cq, NULL);
        cq.wait_obj = FI_WAIT_NONE;
        if (!fabric->waits)
            result = fi_cq_open(fabric->domain, &cq, &fabric->cq, NULL);
    }
    if (!result)
        result = fi_endpoint(fabric->domain, info, &fabric->ep, NULL);
    if (!result)
        result = fi_ep_bind(fabric->ep, &fabric->av->fid, 0);
    if (!result)
        result = fi_ep_bind(fabric->ep, &fabric->cq->fid, FI_TRANSMIT | FI_RECV);
    if (!result)
        result = fi_enable(fabric->ep);
    return result;
}

int partita_rdma_close_endpoint(struct fabric *fabric)
{
    int result = fabric->ep ? fi_close(&fabric->ep->fid) : 0;
    if (!result)
        fabric->ep = NULL;
    return result;
}

void partita_rdma_close(struct fabric *fabric)
{
    partita_rdma_close_endpoint(fabric);
    if (fabric->cq)
        fi_close(&fabric->cq->fid);
    if (fabric->av)
        fi_close(&fabric->av->fid);
    if (fabric->domain)
        fi_close(&fabric->domain->fid);
    if (fabric->fabric)
        fi_close(&fabric->fabric->fid);
    if (fabric->info)
        library.freeinfo(fabric->info);
    free(fabric);
}

int partita_rdma_open(const struct wish *wish, struct facts *facts, struct fabric **opened)
{
    if (!loaded())
        return NOT_INSTALLED;
    struct fabric *fabric = calloc(1, sizeof *fabric);
    if (!fabric)
        return -FI_ENOMEM;
    int result = choose(fabric, wish);
    if (!result)
        result = start(fabric);
    size_t bytes = ADDRESS_BYTES;
    if (!result)
        result = fi_getname(&fabric->ep->fid, facts->address, &bytes);
    if (result) {
        partita_rdma_close(fabric);
        return result;
    }
    const struct fi_domain_attr *domain = fabric->info->domain_attr;
    snprintf(facts->provider, NAME_BYTES, "%s", fabric->info->fabric_attr->prov_name);
    facts->format = fabric->info->addr_format;
    facts->delivery_complete = fabric->delivery_complete;
    facts->virtual_addresses = !!(domain->mr_mode & FI_MR_VIRT_ADDR);
    facts->bound_memory = !!(domain->mr_mode & FI_MR_ENDPOINT);
    facts->key_mask = domain->mr_key_size >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * domain->mr_key_size) - 1;
    if (domain->mr_mode & FI_MR_PROV_KEY)
        facts->key_mask = 0;
    facts->address_bytes = bytes;
    *opened = fabric;
    return 0;
}

/* Names the only peer; the address is padded with zeros to ADDRESS_BYTES. */
int partita_rdma_connect(struct fabric *fabric, const uint8_t *address)
{
    sa_family_t family = ((const struct sockaddr *)address)->sa_family;
    uint32_t format = fabric->info->addr_format;
    if ((format == FI_SOCKADDR_IN && family != AF_INET) || (format == FI_SOCKADDR_IN6 && family != AF_INET6) ||
        (format == FI_SOCKADDR && family != AF_INET && family != AF_INET6))
        return -FI_EINVAL;
    int inserted = fi_av_insert(fabric->av, address, 1, &fabric->peer, 0, NULL);
    return inserted == 1 ? 0 : inserted < 0 ? inserted : -FI_EINVAL;
}

/* Registers memory, for the peer to read and write if remote is not 0 and else as what this side writes from. */
int partita_rdma_register(struct fabric *fabric, void *memory, uint64_t bytes, int32_t remote, uint64_t wanted_key,
                          uint64_t *key, struct fid_mr **registered)
{
    /* Where nothing has to be registered to be written from, nothing is. */
    *registered = NULL;
    if (!remote && !(fabric->info->domain_attr->mr_mode & FI_MR_LOCAL))
        return 0;
    uint64_t access = remote ? FI_REMOTE_READ | FI_REMOTE_WRITE : FI_READ | FI_WRITE;
    struct fid_mr *mr;
    int result = fi_mr_reg(fabric->domain, memory, bytes, access, 0, wanted_key, 0, &mr, NULL);
    if (result)
        return result;
    if (fabric->info->domain_attr->mr_mode & FI_MR_ENDPOINT) {
        result = fi_mr_bind(mr, &fabric->ep->fid, 0);
        if (!result)
            result = fi_mr_enable(mr);
    }
    *key = fi_mr_key(mr);
    if (!result && *key == FI_KEY_NOTAVAIL)
        result = -FI_ENOKEY;
    if (result)
        fi_close(&mr->fid);
    else
        *registered = mr;
    return result;
}

void partita_rdma_unregister(struct fid_mr *registered)
{
    fi_close(&registered->fid);
}

/* Posts one write, or one read; the context comes back from partita_rdma_poll when it is complete. */
int partita_rdma_post(struct fabric *fabric, int32_t read, void *memory, uint64_t bytes, struct fid_mr *registered,
                      uint64_t address, uint64_t key, uint64_t context)
{
    struct iovec local = {.iov_base = memory, .iov_len = bytes};
    struct fi_rma_iov remote = {.addr = address, .len = bytes, .key = key};
    void *descriptor = registered ? fi_mr_desc(registered) : NULL;
    struct fi_msg_rma message = {
        .msg_iov = &local,
        .desc = &descriptor,
        .iov_count = 1,
        .addr = fabric->peer,
        .rma_iov = &remote,
        .rma_iov_count = 1,
        .context = (void *)(uintptr_t)context,
    };
    uint64_t visible = fabric->delivery_complete ? FI_DELIVERY_COMPLETE : 0;
    ssize_t result = read ? fi_readmsg(fabric->ep, &message, FI_COMPLETION)
                          : fi_writemsg(fabric->ep, &message, FI_COMPLETION | visible);
    return (int)result;
}

/* Drives everything forward, takes up to count contexts of what is complete, and waits for the first if wait_ms is not 0. */
int partita_rdma_poll(struct fabric *fabric, uint64_t *contexts, uint64_t count, int32_t wait_ms)
{
    struct fi_cq_entry entries[16];
    if (count > 16)
        count = 16;
    ssize_t result = fi_cq_read(fabric->cq, entries, count);
    if (result == -FI_EAGAIN && wait_ms && fabric->waits)
        result = fi_cq_sread(fabric->cq, entries, count, NULL, wait_ms);
    if (result == -FI_EAVAIL) {
        struct fi_cq_err_entry error = {0};
        if (fi_cq_readerr(fabric->cq, &error, 0) < 0)
            return -FI_EIO;
        return error.err > 0 ? -error.err : -FI_EIO;
    }
    if (result == -FI_EAGAIN || result == -FI_EINTR || result == -FI_ECANCELED)
        return 0;
    for (ssize_t at = 0; at < result; at++)
        contexts[at] = (uint64_t)(uintptr_t)entries[at].op_context;
    return (int)result;
}

/* Whether partita_rdma_poll can wait. */
int partita_rdma_waits(const struct fabric *fabric)
{
    return fabric->waits;
}

/* Ends a wait of partita_rdma_poll in another thread. */
void partita_rdma_wake(struct fabric *fabric)
{
    if (fabric->waits)
        fi_cq_signal(fabric->cq);
}

#else

struct fabric;
struct fid_mr;

void partita_rdma_text(int error, char *text)
{
    snprintf(text, TEXT_BYTES, "error %d", error);
}

int partita_rdma_open(const struct wish *wish, struct facts *facts, struct fabric **opened)
{
    (void)wish, (void)facts, (void)opened;
    return NOT_BUILT;
}

/* Nothing was opened, so nothing below is ever called. */
int partita_rdma_close_endpoint(struct fabric *fabric)
{
    (void)fabric;
    return NOT_BUILT;
}

void partita_rdma_close(struct fabric *fabric)
{
    (void)fabric;
}

int partita_rdma_connect(struct fabric *fabric, const uint8_t *address)
{
    (void)fabric, (void)address;
    return NOT_BUILT;
}

int partita_rdma_register(struct fabric *fabric, void *memory, uint64_t bytes, int32_t remote, uint64_t wanted_key,
                          uint64_t *key, struct fid_mr **registered)
{
    (void)fabric, (void)memory, (void)bytes, (void)remote, (void)wanted_key, (void)key, (void)registered;
    return NOT_BUILT;
}

void partita_rdma_unregister(struct fid_mr *registered)
{
    (void)registered;
}

int partita_rdma_post(struct fabric *fabric, int32_t read, void *memory, uint64_t bytes, struct fid_mr *registered,
                      uint64_t address, uint64_t key, uint64_t context)
{
    (void)fabric, (void)read, (void)memory, (void)bytes, (void)registered, (void)address, (void)key, (void)context;
    return NOT_BUILT;
}

int partita_rdma_poll(struct fabric *fabric, uint64_t *contexts, uint64_t count, int32_t wait_ms)
{
    (void)fabric, (void)contexts, (void)count, (void)wait_ms;
    return NOT_BUILT;
}

int partita_rdma_waits(const struct fabric *fabric)
{
    (void)fabric;
    return 0;
}

void partita_rdma_wake(struct fabric *fabric)
{
    (void)fabric;
}

#endif
