mod cuts;
mod decisions;
mod floods;
mod packet;
mod service_packets;
mod table;
mod volumes;
mod world;
