mod cuts;
mod decisions;
mod packet;
mod service_packets;
mod table;
mod volumes;
mod world;
