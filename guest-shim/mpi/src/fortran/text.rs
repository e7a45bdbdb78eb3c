//! Functions with CHARACTER arguments, whose lengths come after all other arguments.

use super::*;

/// A CHARACTER argument without blanks around it, as a C string.
unsafe fn c_text(text: *const c_char, length: usize) -> Vec<u8> {
    // SAFETY: the program gives a CHARACTER variable of that length.
    let bytes: Vec<u8> = (0..length).map(|i| unsafe { *text.add(i) }.cast_unsigned()).collect();
    let mut trimmed = bytes.trim_ascii().to_vec();
    trimmed.push(0);
    trimmed
}

macro_rules! with_text {
    ($($name:ident = $module:ident::$function:ident($($before:ident: $bkind:ident),*; text $(, $after:ident: $akind:ident)*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($before: kind!($bkind),)* text: *const c_char, $($after: kind!($akind),)*
            ierror: *mut c_int, length: usize) {
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe {
                let text = c_text(text, length);
                *ierror = api::$module::$function($(convert!($bkind $before),)* text.as_ptr().cast()
                    $(, convert!($akind $after))*);
            }
        }
    )* };
}

with_text! {
    mpi_comm_set_name_ = comm::Comm_set_name(comm: han; text);
    mpi_type_set_name_ = type_name::Type_set_name(ty: han; text);
    mpi_info_delete_ = info::Info_delete(info: han; text);
    mpi_info_get_valuelen_ = info::Info_get_valuelen(info: han; text, length_found: out, flag: out);
    mpi_add_error_string_ = error_code::Add_error_string(code: int; text);
    mpi_pack_external_ = pack::Pack_external(; text, input: buf, n: int, ty: han, output: adr, size: aint,
        position: aout);
    mpi_unpack_external_ = pack::Unpack_external(; text, input: adr, size: aint, position: aout, output: buf,
        n: int, ty: han);
    mpi_pack_external_size_ = pack::Pack_external_size(; text, n: int, ty: han, size: aout);
}

macro_rules! names {
    ($($name:ident = $module:ident::$function:ident;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(handle: *const c_int, name: *mut c_char, length: *mut c_int,
            ierror: *mut c_int, room: usize) {
            let mut text = [0u8; 128];
            let mut bytes = 0;
            // SAFETY: the array has the length that the function may fill.
            unsafe {
                *ierror = api::$module::$function(Handle(*handle as usize), text.as_mut_ptr().cast(), &raw mut bytes);
                put_text(name, room, &text[..bytes as usize], length);
            }
        }
    )* };
}

names! {
    mpi_comm_get_name_ = comm::Comm_get_name;
    mpi_type_get_name_ = type_name::Type_get_name;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_info_set_(
    info: *const c_int,
    key: *const c_char,
    value: *const c_char,
    ierror: *mut c_int,
    key_length: usize,
    value_length: usize,
) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let (key, value) = (c_text(key, key_length), c_text(value, value_length));
        *ierror = api::info::Info_set(Handle(*info as usize), key.as_ptr().cast(), value.as_ptr().cast());
    }
}

/// Reads a value of an info: its bytes, if the key is there.
unsafe fn value_of(
    info: *const c_int,
    key: &[u8],
    room: usize,
    flag: *mut c_int,
    ierror: *mut c_int,
) -> Vec<u8> {
    const VALUE_BYTES_MAX: usize = 1024;
    let mut text = [0u8; VALUE_BYTES_MAX];
    let length = room.min(VALUE_BYTES_MAX - 1) as c_int;
    // SAFETY: the program gives INTEGERs; the array has room for the longest value.
    unsafe {
        let (info, key) = (Handle(*info as usize), key.as_ptr().cast());
        *ierror = api::info::Info_get(info, key, length, text.as_mut_ptr().cast(), flag);
    }
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
    text[..end].to_vec()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_info_get_(
    info: *const c_int,
    key: *const c_char,
    length: *const c_int,
    value: *mut c_char,
    flag: *mut c_int,
    ierror: *mut c_int,
    key_length: usize,
    value_length: usize,
) {
    let mut bytes = 0;
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let found = value_of(info, &c_text(key, key_length), (*length).max(0) as usize, flag, ierror);
        if *ierror == SUCCESS && *flag != 0 {
            put_text(value, value_length, &found, &raw mut bytes);
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_info_get_string_(
    info: *const c_int,
    key: *const c_char,
    length: *mut c_int,
    value: *mut c_char,
    flag: *mut c_int,
    ierror: *mut c_int,
    key_length: usize,
    value_length: usize,
) {
    let mut bytes = 0;
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let room = (*length).max(0) as usize;
        let found = value_of(info, &c_text(key, key_length), usize::MAX, flag, ierror);
        if *ierror == SUCCESS && *flag != 0 {
            if room > 0 {
                put_text(value, value_length, &found[..found.len().min(room)], &raw mut bytes);
            }
            *length = found.len() as c_int;
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_info_get_nthkey_(
    info: *const c_int,
    number: *const c_int,
    key: *mut c_char,
    ierror: *mut c_int,
    key_length: usize,
) {
    const KEY_BYTES_MAX: usize = 256;
    let mut text = [0u8; KEY_BYTES_MAX];
    let mut bytes = 0;
    // SAFETY: the program gives the arguments that the Fortran binding asks for; the array has room for any key.
    unsafe {
        *ierror = api::info::Info_get_nthkey(Handle(*info as usize), *number, text.as_mut_ptr().cast());
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
        put_text(key, key_length, &text[..end], &raw mut bytes);
    }
}

/// Fortran has no arguments of the program to give.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_info_create_env_(info: *mut c_int, ierror: *mut c_int) {
    // SAFETY: the program gives INTEGERs.
    unsafe {
        *ierror = api::info::Info_create_env(0, core::ptr::null_mut(), Out::new(info).pointer());
    }
}
